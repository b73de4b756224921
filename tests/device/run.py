# SPDX-License-Identifier: Apache-2.0
"""All that a short visit to a machine with a GPU is for, within a number of seconds: see the README beside it."""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from trainings import Cell, Farm, read_cells, result_file

HERE = Path(__file__).parent
SCORING_SECONDS, REPORT_SECONDS, ENDING_SECONDS = 60, 20, 8
PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "nibabel", "scipy", "mlflow", "itk")
TABLE = ("experiment", "row", "labeled", "subset", "seed", "status", "iterations", "minutes")


def main() -> None:
    options = _options()
    start = time.time()
    end = start + options.seconds - ENDING_SECONDS
    work = Path(tempfile.mkdtemp(prefix="device_"))
    os.environ.update(_environment(work))
    sys.path.append(str(HERE.parents[1]))  # multiprocessing hands this list to its processes
    cells = [cell for file in options.experiments for cell in read_cells(file)]
    cells.sort(key=lambda cell: cell.place >= options.first)
    report = Report(Path(options.out), work, cells)
    _say(f"{json.dumps(report.about)}")
    timing = _script("timing", options.data, work, options.timing_seconds)
    if timing is not None:
        _wait(timing, start + options.timing_seconds + 10)
    checks = _script("checks", options.data, work, options.checks_seconds)
    deadline = end - SCORING_SECONDS
    farm = Farm(report.cells, options.data, work, options.processes, deadline) if report.cells else None
    while time.time() < end and not (_ended(checks) and (farm is None or farm.finished())):
        time.sleep(1)
        if time.time() > report.written + REPORT_SECONDS:
            report.write(farm)
    if farm is not None:
        farm.stop()
    if checks is not None:
        _wait(checks, time.time())
    report.write(farm)
    report.show(time.time() - start)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", help="files for `metassl experiment`, the most telling first")
    first = "so many rows of each experiment, with all their subsets, come before any other row"
    parser.add_argument("--first", type=int, default=1000, help=first)
    parser.add_argument("--data", required=True, help="folder of the ACDC release")
    parser.add_argument("--out", required=True, help="folder for results.json, cases.csv, runs.tar.gz and log.txt")
    parser.add_argument("--seconds", type=float, required=True, help="for all that follows")
    parser.add_argument("--timing-seconds", type=float, default=60, help="for the timings, alone; 0 for none")
    parser.add_argument(
        "--checks-seconds", type=float, default=240, help="for the checks, beside trainings; 0 for none"
    )
    parser.add_argument("--processes", type=int, default=14, help="trainings at a time")
    return parser.parse_args()


def _environment(work: Path) -> dict[str, str]:
    """One thread a process, since there are as many as cores; the code of this checkout; no progress bars."""
    paths = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    drawing = {"MPLBACKEND": "Agg", "MPLCONFIGDIR": str(work / "matplotlib")}
    return {**threads, **drawing, "PYTHONPATH": os.pathsep.join(paths), "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}


def _script(name: str, data: str, work: Path, seconds: float) -> subprocess.Popen | None:
    if not seconds:
        return None
    with (work / f"{name}.log").open("w") as log:
        command = [sys.executable, str(HERE / f"{name}.py"), data, str(work / name), str(work / f"{name}.json")]
        return subprocess.Popen([*command, str(seconds)], stdout=log, stderr=log)


def _ended(process: subprocess.Popen | None) -> bool:
    return process is None or process.poll() is not None


def _wait(process: subprocess.Popen, until: float) -> None:
    try:
        process.wait(max(0.1, until - time.time()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Report:
    """What comes back, written again and again so that a visit that is cut short leaves something.

    Args:
        out: folder of the files.
        work: folder that the other processes write to.
        cells: what is to be trained.
    """

    def __init__(self, out: Path, work: Path, cells: list[Cell]) -> None:
        self.out, self.work, self.cells, self.written = out, work, cells, time.time()
        out.mkdir(parents=True, exist_ok=True)
        self.about = {"card": _card(), "cores": os.cpu_count(), "python": platform.python_version(), **_versions()}
        self.results: list[dict[str, Any]] = []

    def write(self, farm: Farm | None) -> None:
        self.written = time.time()
        self.results = farm.results() if farm is not None else []
        short = [{key: value for key, value in result.items() if key != "cases"} for result in self.results]
        content = {"environment": self.about, "timings": self.notes("timing"), "checks": self.notes("checks")}
        (self.out / "results.json").write_text(json.dumps({**content, "cells": short}, indent=1), encoding="utf-8")
        logs = [self.work / f"{name}.log" for name in ("timing", "checks")]
        (self.out / "log.txt").write_text("".join(_end(log) for log in logs), encoding="utf-8")
        self._write_cases()
        self._pack()

    def notes(self, name: str) -> list[dict[str, Any]]:
        file = self.work / f"{name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []

    def _write_cases(self) -> None:
        rows = [
            {**{key: result.get(key) for key in TABLE}, **case}
            for result in self.results
            for case in result.get("cases", ())
        ]
        with (self.out / "cases.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else TABLE)
            writer.writeheader()
            writer.writerows(rows)

    def _pack(self) -> None:
        """The results as ``metassl experiment`` writes them; those of trainings that were stopped lie apart."""
        with tarfile.open(self.out / "runs.tar.gz", "w:gz") as archive:
            for file in sorted({cell.file for cell in self.cells}):
                archive.add(file, f"results/{Path(file).name}")
            for cell, result in zip(self.cells, self.results, strict=False):
                if result.get("cases"):
                    folder = "results" if result["status"] == "done" else "stopped"
                    file = result_file(cell, self.work)
                    archive.add(file, f"{folder}/{cell.experiment}/{file.name}")

    def show(self, seconds: float) -> None:
        """Print a short table, last of all."""
        for note in self.notes("timing"):
            milliseconds = note.get("mean_ms", note.get("ms", note["status"]))
            _say(f"{note['name']:50} {milliseconds} ms  {note.get('peak_mib', '')} MiB")
        checks = self.notes("checks")
        for note in checks:
            if note["status"] != "passed":
                _say(f"{note['status']}: {note['name']}: {note.get('error', '')[:200]}")
        _say(f"{sum(note['status'] == 'passed' for note in checks)} of {len(checks)} checks passed")
        for result in self.results:
            named = " ".join(str(result[key]) for key in TABLE[:4])
            done = f"{result['status']:9} {result.get('iterations', 0):6} it {result.get('minutes', 0):5} min"
            ended = result.get("log", "").strip().rpartition("\n")[2] if result["status"] == "failed" else ""
            _say(f"{named:60} {done}  {_dice(result)} {ended[:150]}")
        _say(f"{seconds:.0f} s in all")


def _dice(result: dict[str, Any]) -> str:
    last, averaged = (result.get(key, {}).get("mean", "") for key in ("dice", "ema_dice"))
    return f"Dice {last} EMA {averaged}"


def _card() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def _end(log: Path, length: int = 60_000) -> str:
    return f"== {log.name}\n{log.read_text(errors='replace')[-length:]}\n" if log.is_file() else ""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
