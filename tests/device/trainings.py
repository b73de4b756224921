# SPDX-License-Identifier: Apache-2.0
"""Cells of experiments, trained side by side on one card until a deadline by ``metassl experiment``."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One training: a row of an experiment with one labeled subset and one seed."""

    file: str
    row: str
    labeled: int
    subset: str
    seed: int
    place: int  # of the row in its experiment

    @property
    def experiment(self) -> str:
        return Path(self.file).stem

    @property
    def name(self) -> str:
        return f"{self.row}_{self.labeled}_{self.subset}_{self.seed}"

    def choice(self) -> list[str]:
        """The options of ``metassl experiment`` that choose this cell."""
        of = {"row": self.row, "labeled": self.labeled, "subset": self.subset, "seed": self.seed}
        return [text for key, value in of.items() for text in (f"--{key}", str(value))]


def read_cells(file: str) -> list[Cell]:
    """All rows of the first number, seed and subset, then of the next, as ``metassl experiment`` orders them."""
    content = json.loads(Path(file).read_text(encoding="utf-8"))
    names = [row.get("name", f"{row['method']}-{row['preset']}") for row in content["rows"]]
    return [
        Cell(file, name, labeled, str(subset), seed, place)
        for labeled in content["labeled"]
        for seed in content["seeds"]
        for subset in content["subsets"]
        for place, name in enumerate(names)
    ]


class Farm:
    """Processes that take one cell after the other; at the deadline trainings are stopped and scored as they are.

    Args:
        cells: in the order in which they are begun.
        data: folder of the data set's release.
        work: folder for all that the trainings write.
        processes: number of trainings at a time.
        deadline: when trainings are stopped, as of ``time.time()``.
    """

    def __init__(self, cells: list[Cell], data: str, work: Path, processes: int, deadline: float) -> None:
        self.cells, self.work = cells, work
        # a fork of a process that has touched the card could not use it
        spawn = multiprocessing.get_context("spawn")
        self.next = spawn.Value("i", 0)
        arguments = (cells, data, str(work), deadline, self.next)
        self.workers = [spawn.Process(target=_work, args=arguments) for _ in range(min(processes, len(cells)))]
        for worker in self.workers:
            worker.start()

    def finished(self) -> bool:
        return not any(worker.is_alive() for worker in self.workers)

    def stop(self) -> None:
        """End what still runs; each worker leads a process group of its own."""
        for worker in self.workers:
            if worker.is_alive():
                os.killpg(worker.pid, signal.SIGKILL)

    def results(self) -> list[dict[str, Any]]:
        """What there is of each cell now."""
        return [{**_about(cell), **_result(cell, self.work)} for cell in self.cells]


def _about(cell: Cell) -> dict[str, Any]:
    names = ("experiment", "row", "labeled", "subset", "seed")
    return {name: getattr(cell, name) for name in names}


def _result(cell: Cell, work: Path) -> dict[str, Any]:
    run, file = _run_folder(cell, work), result_file(cell, work)
    if not run.is_dir():
        return {"status": "not begun"}
    state = json.loads(_text(run / "state.json") or "{}")
    found = {"status": "running", "iterations": _iterations(run), **state}
    if not file.is_file():
        return {**found, "log": _text(run / "log.txt")[-1500:]}
    run_file = json.loads(file.read_text(encoding="utf-8"))
    dice = {name: _dice(run_file[cases]) for name, cases in (("dice", "cases"), ("ema_dice", "ema_cases"))}
    return {**found, "training_seconds": run_file["seconds"], **dice, "cases": run_file["cases"]}


def _dice(cases: list[dict[str, Any]]) -> dict[str, float]:
    """Mean over the cases, by structure."""
    scores: dict[str, list[float]] = {}
    for case in cases:
        scores.setdefault(case["structure"], []).append(case["dice"] or 0.0)
    return {structure: round(sum(values) / len(values), 4) for structure, values in scores.items()}


def result_file(cell: Cell, work: Path) -> Path:
    """The result of a cell; each has a folder of results of its own, so that none writes another's tables."""
    return work / "results" / cell.experiment / cell.name / cell.experiment / f"{cell.name}.json"


def _run_folder(cell: Cell, work: Path) -> Path:
    return work / "runs" / cell.experiment / cell.name


def _iterations(run: Path) -> int:
    history = run / "history.csv"
    if not history.is_file():
        return 0
    with history.open(encoding="utf-8", newline="") as file:
        return max((int(row["iteration"]) for row in csv.DictReader(file)), default=0)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _work(cells: list[Cell], data: str, work: str, deadline: float, following: Any) -> None:
    os.setpgid(0, 0)
    while time.time() < deadline:
        with following.get_lock():
            number = following.value
            following.value += 1
        if number >= len(cells):
            return
        if time.time() + _quickest(cells[number], Path(work)) < deadline:
            _train(cells[number], data, Path(work), deadline)


def _quickest(cell: Cell, work: Path) -> float:
    """Seconds of the quickest cell of this experiment: with less left, another would only slow the others down."""
    states = [json.loads(_text(file) or "{}") for file in _run_folder(cell, work).parent.glob("*/state.json")]
    return min((60 * state["minutes"] for state in states if state.get("status") == "done"), default=0.0)


def _train(cell: Cell, data: str, work: Path, deadline: float) -> None:
    run, start = _run_folder(cell, work), time.time()
    run.mkdir(parents=True, exist_ok=True)
    _log_to(run / "log.txt")
    timer = threading.Timer(deadline - start, _stop_training, (run,))
    timer.daemon = True
    timer.start()
    status = "done" if _experiment(cell, data, work) else "failed"
    timer.cancel()
    if status == "failed" and (run / "stopped").is_file():
        status = "stopped"
        if _networks_so_far(run / "models"):
            # with this note the experiment takes the training for done and scores its last network
            note = {"seconds": round(time.time() - start), "resumed": False, "stopped": True}
            (run / "training.json").write_text(json.dumps(note), encoding="utf-8")
            _experiment(cell, data, work)
    state = {"status": status, "minutes": round((time.time() - start) / 60, 2)}
    (run / "state.json").write_text(json.dumps(state), encoding="utf-8")


def _experiment(cell: Cell, data: str, work: Path) -> bool:
    results = result_file(cell, work).parents[1]
    where = ["--dataset-dir", data, "--out", str(work / "runs"), "--results", str(results)]
    try:
        from metassl_monai.cli import app

        app(["experiment", cell.file, *where, *cell.choice()], standalone_mode=False)
    except (Exception, SystemExit) as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        sys.stdout.flush()
    return result_file(cell, work).is_file()


def _stop_training(run: Path) -> None:
    if (run / "training.json").is_file():  # it is being scored
        return
    (run / "stopped").touch()
    for child in _children(os.getpid()):
        os.kill(child, signal.SIGKILL)


def _networks_so_far(models: Path) -> bool:
    """Write the networks of the last checkpoint as a complete training leaves them; not those of two networks."""
    if not (models / "checkpoint.pt").is_file():
        return False
    import torch

    checkpoint = torch.load(models / "checkpoint.pt", map_location="cpu", weights_only=True)
    names = checkpoint["average"]
    if any(f"network.{name}" not in checkpoint["method"] for name in names):
        return False
    torch.save({name: checkpoint["method"][f"network.{name}"] for name in names}, models / "model.pt")
    torch.save(checkpoint["average"], models / "model_ema.pt")
    return True


def _children(parent: int) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            found.append(int(file.parent.name))
    return found


def _log_to(file: Path) -> None:
    """Send what this process and its children print to a file."""
    sys.stdout.flush()
    with file.open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
