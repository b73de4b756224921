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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import monai
import torch
from filelock import FileLock, Timeout
from monai.utils import path_to_sqlite_uri

import metassl_monai
from metassl_monai.apps.prepare import prepare_datalist
from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import bundle_path, run_bundle
from metassl_monai.bundle.writable import check_writable
from metassl_monai.data import read_datalist
from metassl_monai.files import write_json
from metassl_monai.handlers.checkpoint_file import found_checkpoints
from metassl_monai.report import read_history, subject_differences

from .definition import Cell, read_experiment, same_runs, select
from .page import write_results
from .pictures import draw_pictures
from .runs import read_run, write_run

__all__ = ["run_experiment"]

_STOPPED = (128 + 1, 128 + 2, 128 + 15)
"""Exit statuses of a command that was asked to stop: by a lost terminal, Ctrl-C or SIGTERM."""


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
    pictures: int = 0,
) -> None:
    """Run the chosen cells that have no result yet, compare each with its stored result, and write the page of results.

    A cell that another experiment of ``results`` has run with the same settings is copied from there. An interrupted
    cell goes on from its last epoch. Several processes may work on one experiment: none takes a cell that another one
    has begun. Each cell is a run of MLflow, in ``out/mlruns.db``, where MLflow is installed. Test data are read when
    all chosen cells are trained, and not before.

    Args:
        file: the experiment, see :func:`read_experiment`.
        dataset_dir: folder of the data set's release.
        out: folder of the runs.
        results: folder of the results, ``out/results`` if left out: one JSON file a cell, a copy of the experiment, and
            beside the folder a page ``<folder>.md`` with the tables.
        stored: folder of results to compare with.
        rows: names of rows; all if empty.
        labeled: numbers of labeled subjects; all if empty.
        subsets: labeled subsets; all if empty.
        seeds: seeds of the training; all if empty.
        pictures: number of cases to draw as all chosen rows segment them, see :func:`draw_pictures`; 0 for none.

    Raises:
        UserError: when the experiment is faulty, a folder cannot be written, a result is of other settings than the
            file's, or cells have failed, after all others; at once when a cell was asked to stop.
    """
    file, out = Path(file), Path(out)
    results = out / "results" if results is None else Path(results)
    cells = select(read_experiment(file), rows, labeled, subsets, seeds)
    folder = results / file.stem
    check_writable(out, folder, results.parent)
    folder.mkdir(parents=True, exist_ok=True)
    if file.resolve() != (results / file.name).resolve():
        shutil.copyfile(file, results / file.name)
    missing = [cell for cell in cells if not _is_done(cell, folder)]
    sys.stdout.write(f"{file.stem}: {len(cells)} runs, {len(cells) - len(missing)} of them done\n")
    train = partial(_train, dataset_dir=Path(dataset_dir), out=out, folder=folder)
    score = partial(_score, dataset_dir=Path(dataset_dir), out=out, folder=folder, stored=Path(stored))
    if cells[0].split == "test":
        failed = [*_each(missing, train), *_each(missing, score)]
    else:
        failed = _each(missing, lambda cell: (train(cell), score(cell)))
    if pictures and not failed:
        draw_pictures(cells, dataset_dir, out, results, pictures)
    sys.stdout.write(f"The tables are in {write_results(results)}.\n")
    if failed:
        raise UserError("\n".join(["These runs failed; the same command tries them again:", *failed]))


def _is_done(cell: Cell, folder: Path) -> bool:
    file = folder / f"{cell.name}.json"
    if not file.is_file():
        return False
    if read_run(file)["settings"] != cell.settings():
        raise UserError(
            f"{file}: was made with other settings than the experiment has now: choose another --results and --out, or "
            "remove it and its run."
        )
    return True


def _each(cells: Sequence[Cell], work: Callable[[Cell], Any]) -> list[str]:
    """Do the work for each cell and return a message for each that failed."""
    failed, start = [], time.monotonic()
    for number, cell in enumerate(cells):
        left = (time.monotonic() - start) / number * (len(cells) - number) if number else None
        about = "" if left is None else f", about {timedelta(seconds=round(left))} left"
        sys.stdout.write(f"{number + 1} of {len(cells)}{about}: {cell.name}\n")
        try:
            work(cell)
        except UserError as error:
            if error.code in _STOPPED:
                sys.stdout.write(f"{cell.name} was stopped; the same command goes on with it.\n")
                raise
            reason = f"exit status {error.code}, see above" if isinstance(error.code, int) else error.code
            sys.stdout.write(f"{cell.name} failed: {reason}\n")
            failed.append(f"  {cell.name}: {reason}")
    return failed


def _train(cell: Cell, dataset_dir: Path, out: Path, folder: Path) -> None:
    run = out / cell.experiment / cell.name
    if any(same_runs(cell, folder.parent)):
        return
    with _claimed(run, cell) as free:
        if not free or (run / "training.json").is_file():
            return
        if not (run / "datalist.json").is_file():
            prepare_datalist(cell.reader, dataset_dir, cell.labeled, run / "datalist.json", cell.subset, **cell.prepare)
        write_json(run / "overrides.json", _overrides(cell))
        resume = ["--resume", "True"] if found_checkpoints(run / "models") else []
        start = time.monotonic()
        run_bundle("training", _configs(cell, run), [*_where(run, dataset_dir, run), *resume, *_tracking(cell, out)])
        write_json(run / "training.json", {"seconds": round(time.monotonic() - start), "resumed": bool(resume)})


def _score(cell: Cell, dataset_dir: Path, out: Path, folder: Path, stored: Path) -> None:
    run, file = out / cell.experiment / cell.name, folder / f"{cell.name}.json"
    twin = next((twin for _, twin in same_runs(cell, folder.parent)), None)
    if twin is not None:
        write_run(file, {**twin, "settings": cell.settings()})
    elif (run / "training.json").is_file():
        cases = _evaluate(cell, run, dataset_dir, run / "models" / "model.pt", run)
        ema_cases = _evaluate(cell, run, dataset_dir, run / "models" / "model_ema.pt", run / "ema")
        datalist = read_datalist(run / "datalist.json")
        about = {
            "settings": cell.settings(),
            "labeled_subjects": sorted({item["subject"] for item in datalist["labeled"]}),
            **json.loads((run / "training.json").read_text(encoding="utf-8")),
            "environment": _environment(),
        }
        history = read_history(run / "history.csv")
        write_run(file, {**about, "cases": cases, "ema_cases": ema_cases, "history": history})
    else:  # another process trains it
        return
    sys.stdout.write(_against_stored(file, stored / cell.experiment / file.name))


def _evaluate(cell: Cell, run: Path, dataset_dir: Path, network: Path, out: Path) -> list[dict[str, Any]]:
    """Return the rows of the table of a network's scores."""
    evaluate = bundle_path(cell.bundle) / "configs" / "evaluate.json"
    options = [*_where(run, dataset_dir, out), "--ckpt_path", str(network), "--split", cell.split]
    run_bundle("evaluating", [*_configs(cell, run), evaluate], options)
    table = out / f"evaluation_{cell.split}" / "metrics.json"
    rows: list[dict[str, Any]] = json.loads(table.read_text(encoding="utf-8"))["cases"]
    return rows


@contextmanager
def _claimed(run: Path, cell: Cell) -> Iterator[bool]:
    """Keep other processes from this run's folder; False where one has it."""
    run.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run / "lock").acquire(timeout=0):
            _refuse_other_settings(run / "settings.json", cell)
            yield True
    except Timeout:
        sys.stdout.write(f"{cell.name} is left to another process, which has begun it\n")
        yield False


def _refuse_other_settings(file: Path, cell: Cell) -> None:
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != cell.settings():
        raise UserError(f"{file.parent}: holds a run of other settings: remove it, or choose another --out.")
    write_json(file, cell.settings())


def _overrides(cell: Cell) -> dict[str, Any]:
    preset = {} if cell.preset == "plain" else {"preset": cell.preset}
    return {"seed": cell.seed, **preset, **cell.overrides}


def _configs(cell: Cell, run: Path) -> list[Path]:
    return [*cell.configs(), run / "overrides.json"]


def _where(run: Path, dataset_dir: Path, out: Path) -> list[str]:
    return ["--dataset_dir", str(dataset_dir), "--datalist", str(run / "datalist.json"), "--output_dir", str(out)]


def _tracking(cell: Cell, out: Path) -> list[str]:
    if importlib.util.find_spec("mlflow") is None:
        return []
    return [
        *("--tracking", str(bundle_path(cell.bundle) / "configs" / "tracking.json")),
        *("--tracking_uri", path_to_sqlite_uri(str((out / "mlruns.db").resolve()))),
        *("--experiment_name", cell.experiment, "--run_name", cell.name),
    ]


def _environment() -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        "metassl_monai": metassl_monai.__version__,
    }


def _against_stored(file: Path, stored: Path) -> str:
    if not stored.is_file() or stored.samefile(file):
        return f"There is no stored result {stored} to compare with.\n"
    new, old = read_run(file), read_run(stored)
    if new["settings"] != old["settings"]:
        return f"The stored result {stored} is of other settings and not compared.\n"
    differences = subject_differences(new["cases"], old["cases"], "dice").values()
    largest = max(map(abs, differences), default=0.0)
    if largest == 0:
        return f"The mean Dice of each subject equals the stored one in {stored}.\n"
    mean = fmean(differences)
    return f"Mean Dice minus the stored one in {stored}: {mean:+.4f}, at most {largest:.4f} in a subject.\n"
