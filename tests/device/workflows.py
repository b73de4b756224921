# SPDX-License-Identifier: Apache-2.0
"""The ACDC bundle in this process, on a few patients, and notes that survive a process that is ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from metassl_monai.bundle.locate import bundle_path, config_files
from metassl_monai.data import READERS, write_datalist

BUNDLE = "acdc_cardiac_mri_segmentation"
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda:0" if CUDA else "cpu")


def few_patients(data: str, out: Path, unlabeled: int = 3, validation: int = 1) -> Path:
    """Write a datalist of the first of the 3 published labeled patients, some unlabeled and some validation volumes."""
    content = READERS["acdc"](data, 3, "published")
    first = content["labeled"][0]["subject"]
    content["labeled"] = [item for item in content["labeled"] if item["subject"] == first]
    content.update({"unlabeled": content["unlabeled"][:unlabeled], "validation": content["validation"][:validation]})
    content.update({key: content[key][:unlabeled] for key in ("monitor",) if key in content})
    write_datalist(content, out / "few.json")
    return out / "few.json"


def workflow(names: Sequence[str], data: str, datalist: Path, out: Path, **overrides: Any) -> ConfigWorkflow:
    """The bundle's training with these overlays, initialized; it neither validates nor draws."""
    quiet = {"val_interval": 10**6, "picture_interval": 10**6, "keep": "last", "check_data": False}
    files = [str(file) for file in config_files(bundle_path(BUNDLE), ["train", *names])]
    where = {"dataset_dir": data, "datalist": str(datalist), "output_dir": str(out)}
    built = ConfigWorkflow(
        files, run_id="training", workflow_type="train", logging_file=False, **{**quiet, **where, **overrides}
    )
    built.initialize()
    return built


class Notes:
    """A list of what was found, written after each entry.

    Args:
        file: the JSON file.
        seconds: after so many, what is left is noted as skipped.
    """

    def __init__(self, file: str, seconds: float) -> None:
        self.file, self.end = Path(file), time.monotonic() + seconds
        self.entries: list[dict[str, Any]] = []

    def add(self, name: str, work: Callable[[], Any]) -> None:
        """Do the work and note its result, or why there is none."""
        start = time.monotonic()
        entry: dict[str, Any] = {"name": name, "status": "skipped" if start > self.end else "unfinished"}
        self.entries.append(entry)
        self._write()
        if start > self.end:
            return
        try:
            entry.update(status="passed", **(work() or {}))
        except (Exception, SystemExit) as error:
            entry.update(status="failed", error=f"{type(error).__name__}: {error}"[:600])
        entry["seconds"] = round(time.monotonic() - start, 2)
        self._write()

    def _write(self) -> None:
        partial = self.file.with_suffix(".part")
        partial.write_text(json.dumps(self.entries, indent=1), encoding="utf-8")
        os.replace(partial, self.file)
