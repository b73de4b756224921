# SPDX-License-Identifier: Apache-2.0
"""What the output folder of a training holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from metassl_monai.apps.compare import is_outdated
from metassl_monai.bundle.errors import UserError
from metassl_monai.data.datalist import parse_json
from metassl_monai.files import nan_for_null
from metassl_monai.report import CaseRow, read_history

__all__ = ["TrainedRun"]


class TrainedRun:
    """A bundle, or the output folder of a training.

    Args:
        folder: the folder.
        name: what the page calls it.

    Raises:
        UserError: when it is neither.
    """

    def __init__(self, folder: Path, name: str) -> None:
        if not any((folder / name).exists() for name in ("configs/train.json", "history.csv", "plan.json")):
            raise UserError(f"{folder}: is neither a bundle nor the output folder of a training: correct the path.")
        self.folder = folder
        self.name = name
        self.model = folder / "models" / "model.pt"
        self.history_file = folder / "history.csv"
        self.table_folder = folder / "evaluation_validation"
        self.config_file = max(folder.glob("config_*.json"), key=lambda file: file.stat().st_mtime, default=None)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config that ran, empty where nothing has been trained."""
        return {} if self.config_file is None else ConfigParser.load_config_file(self.config_file)

    @cached_property
    def history(self) -> dict[str, list[float]]:
        """See :func:`metassl_monai.report.read_history`; empty where there is none."""
        return read_history(self.history_file) if self.history_file.is_file() else {}

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What the training ran on, see :func:`metassl_monai.handlers.run_facts`."""
        file = self.folder / "environment.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    @property
    def labels(self) -> dict[str, str]:
        """Name of each class value."""
        return dict(self.config.get("labels", {}))

    @property
    def scores(self) -> list[CaseRow]:
        """The rows of the validation's table, none where it is missing or older than the network."""
        file = self.table_folder / "metrics.json"
        if not file.is_file() or is_outdated(file, self.folder):
            return []
        rows: list[CaseRow] = nan_for_null(json.loads(file.read_text(encoding="utf-8"))["cases"])
        return rows

    def parser(self) -> ConfigParser:
        """Return the config that ran, for this folder and not for the one that it was in at that time."""
        parser = ConfigParser()
        parser.read_config([str(self.config_file)])
        parser["output_dir"] = str(self.folder)
        return parser

    def datalist(self) -> Path | None:
        """Return the datalist of the training, None where it is not there any more."""
        found: Iterator[Path] = (Path(file) for file in self._datalists() if Path(file).is_file())
        return next(found, None)

    def count(self, key: str) -> int:
        """Return how many cases a list of the datalist holds."""
        file = self.datalist()
        return 0 if file is None else len(parse_json(file).get(key, ()))

    def _datalists(self) -> Iterator[str | Path]:
        if self.config_file is not None:
            yield self.parser().get_parsed_content("datalist")
        yield self.folder / "datalist.json"
