# SPDX-License-Identifier: Apache-2.0
"""Runs the cells of an experiment one after the other and keeps what each gave in one small JSON file."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import monai
import torch

import metassl_monai
from metassl_monai.data import read_datalist
from metassl_monai.files import write_json
from metassl_monai.report import Run, read_history, read_run, subject_differences, write_results, write_run

from .bundles import bundle_path, run_bundle
from .errors import UserError
from .experiment import Cell, read_experiment, select
from .prepare import prepare_datalist

__all__ = ["run_experiment"]


def run_experiment(
    file: str | Path,
    dataset_dir: str | Path,
    out: str | Path,
    results: str | Path | None = None,
    stored: str | Path = "docs/results",
    rows: Sequence[str] = (),
    labeled: Sequence[int] = (),
    subsets: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> None:
    """Run the chosen cells that have no result yet, compare each with its stored result, and write the page of results.

    A cell that another experiment of ``results`` has run with the same settings is copied from there. An interrupted
    cell goes on from its last epoch. Each cell is a run of MLflow, in ``out/mlruns.db``, where MLflow is installed.

    Args:
        file: the experiment, see :func:`read_experiment`.
        dataset_dir: folder of the data set's release.
        out: folder of the runs and datalists.
        results: folder of the results, ``out/results`` if left out: one JSON file a cell, a copy of the experiment, and
            beside the folder a page ``<folder>.md`` with the tables.
        stored: folder of results to compare with.
        rows: names of rows; all if empty.
        labeled: numbers of labeled subjects; all if empty.
        subsets: labeled subsets; all if empty.
        seeds: seeds of the training; all if empty.

    Raises:
        UserError: when the experiment is faulty, a run fails, or a result is of other settings than the file's.
    """
    file, out = Path(file), Path(out)
    results = out / "results" if results is None else Path(results)
    cells = select(read_experiment(file), rows, labeled, subsets, seeds)
    folder = results / file.stem
    missing = [cell for cell in cells if not _is_done(cell, folder)]
    sys.stdout.write(f"{file.stem}: {len(cells)} runs, {len(cells) - len(missing)} of them done\n")
    folder.mkdir(parents=True, exist_ok=True)
    if file.resolve() != (results / file.name).resolve():
        shutil.copyfile(file, results / file.name)
    start = time.monotonic()
    for number, cell in enumerate(missing):
        _tell(number, len(missing), cell, time.monotonic() - start)
        run = _same_run(cell, results) or _run_cell(cell, Path(dataset_dir), out)
        write_run(folder / f"{cell.name}.json", run)
        sys.stdout.write(_against_stored(folder / f"{cell.name}.json", Path(stored) / cell.experiment))
    page = write_results(results)
    sys.stdout.write(f"The tables are in {page}.\n")


def _is_done(cell: Cell, folder: Path) -> bool:
    file = folder / f"{cell.name}.json"
    if not file.is_file():
        return False
    if read_run(file)["settings"] != cell.settings():
        raise UserError(
            f"{file}: was made with other settings than the experiment has now: choose another --results, or remove it."
        )
    return True


def _same_run(cell: Cell, results: Path) -> Run | None:
    """Return the result of a cell of another experiment that differs in the experiment's name alone."""
    for file in results.glob(f"*/{cell.name}.json"):
        run = read_run(file)
        if {**run["settings"], "experiment": cell.experiment} == cell.settings():
            return {**run, "settings": cell.settings()}
    return None


def _tell(number: int, total: int, cell: Cell, elapsed: float) -> None:
    left = f", about {timedelta(seconds=round(elapsed / number * (total - number)))} left" if number else ""
    sys.stdout.write(f"run {number + 1} of {total}{left}: {cell.name}\n")


def _run_cell(cell: Cell, dataset_dir: Path, out: Path) -> dict[str, Any]:
    datalist = out / cell.experiment / "datalists" / f"{cell.labeled}_{cell.subset}.json"
    if not datalist.is_file():
        prepare_datalist(cell.reader, dataset_dir, cell.labeled, datalist, cell.subset, **cell.prepare)
    folder = out / cell.experiment / cell.name
    overrides = {"seed": cell.seed, **({} if cell.preset == "plain" else {"preset": cell.preset}), **cell.overrides}
    write_json(folder / "overrides.json", overrides)
    configs = [*cell.configs(), folder / "overrides.json"]
    where = ["--dataset_dir", str(dataset_dir), "--datalist", str(datalist), "--output_dir", str(folder)]
    resume = ["--resume", "True"] if (folder / "models" / "checkpoint.pt").is_file() else []
    start = time.monotonic()
    run_bundle("training", configs, [*where, *resume, *_tracking(cell, out)])
    seconds = time.monotonic() - start
    scores = folder / f"evaluation_{cell.split}" / "metrics.json"
    evaluate = bundle_path(cell.bundle) / "configs" / "evaluate.json"
    run_bundle("evaluating", [*configs, evaluate], [*where, "--split", cell.split])
    return {
        "settings": cell.settings(),
        "labeled_subjects": sorted({item["subject"] for item in read_datalist(datalist)["labeled"]}),
        "seconds": round(seconds),
        "resumed": bool(resume),
        "environment": _environment(),
        "cases": json.loads(scores.read_text(encoding="utf-8"))["cases"],
        "history": read_history(folder / "history.csv"),
    }


def _tracking(cell: Cell, out: Path) -> list[str]:
    if importlib.util.find_spec("mlflow") is None:
        return []
    return [
        *("--tracking", str(bundle_path(cell.bundle) / "configs" / "tracking.json")),
        *("--tracking_uri", f"sqlite:///{(out / 'mlruns.db').resolve()}"),
        *("--experiment_name", cell.experiment, "--run_name", cell.name),
    ]


def _environment() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {"torch": torch.__version__, "monai": monai.__version__, "metassl_monai": metassl_monai.__version__}
    return {
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
    }


def _against_stored(file: Path, folder: Path) -> str:
    stored = folder / file.name
    if not stored.is_file() or stored.samefile(file):
        return ""
    differences = subject_differences(read_run(file)["cases"], read_run(stored)["cases"], "dice").values()
    largest = max(map(abs, differences), default=0.0)
    if largest == 0:
        return f"The mean Dice of each subject equals the stored one in {stored}.\n"
    return (
        f"Mean Dice minus the stored one in {stored}: {fmean(differences):+.4f}, at most {largest:.4f} in a subject.\n"
    )
