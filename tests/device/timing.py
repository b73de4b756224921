# SPDX-License-Identifier: Apache-2.0
"""Milliseconds and memory of a training iteration, through the real configs: ``timing.py DATA WORK NOTES SECONDS``."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from workflows import CUDA, DEVICE, Notes, few_patients, workflow

SIDE, ITERATIONS, WARM_UP = (256, 70, 20) if CUDA else (32, 6, 2)
FULL = {"spatial_size": [SIDE, SIDE], "num_workers": 4 if CUDA else 0}
SMALL = {"spatial_size": [SIDE // 2, SIDE // 2], "num_workers": 2 if CUDA else 0}
FLOAT32 = {"amp": False}
CHANNELS_LAST = {"method": "$@method_def.to(@device, memory_format=torch.channels_last)"}
METHODS = {
    "supervised plain": ["supervised", "plain"],
    "cps plain": ["cps", "plain"],
    "cps ref_cps2d": ["cps"],
    "bcp plain": ["bcp", "plain"],
}


class Repeated:
    """One batch, on the device, again and again: an epoch without loading."""

    def __init__(self, batch: Any, length: int) -> None:
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return iter([self.batch] * self.length)


def median_milliseconds(trainer: Any) -> dict[str, float]:
    """Train for one epoch: median between two ends of iterations, and mean with the device's work waited for."""
    ends: list[float] = []

    def note() -> None:
        if len(ends) in (WARM_UP, ITERATIONS - 1) and CUDA:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    steps = [1e3 * (end - start) for start, end in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False)]
    return {"median_ms": round(statistics.median(steps), 2), "mean_ms": round(statistics.fmean(steps), 2)}


def measure(names: list[str], loading: bool, data: str, datalist: Path, out: Path, **overrides: Any) -> dict[str, Any]:
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    one_epoch = {"iterations": ITERATIONS, "iterations_per_epoch": ITERATIONS}
    training = workflow(names, data, datalist, out, **{**one_epoch, **overrides})
    trainer = training.parser.get_parsed_content("train::trainer")
    if not loading:
        batch = trainer.prepare_batch(next(iter(trainer.data_loader)), DEVICE)
        trainer.data_loader = Repeated(batch, ITERATIONS)
    found = median_milliseconds(trainer)
    return {**found, **({"peak_mib": torch.cuda.max_memory_allocated() >> 20} if CUDA else {})}


def main(data: str, work: str, notes_file: str, seconds: str) -> None:
    out, notes = Path(work), Notes(notes_file, float(seconds))
    out.mkdir(parents=True, exist_ok=True)
    datalist = few_patients(data, out)
    both = {name: names for name, names in METHODS.items() if name in ("cps ref_cps2d", "bcp plain")}
    plans = [
        ("256 amp", True, METHODS, FULL),
        ("256 amp", False, METHODS, FULL),
        ("small float32", False, METHODS, {**SMALL, **FLOAT32}),
        ("small float32", True, both, {**SMALL, **FLOAT32}),
        ("small amp", False, both, SMALL),
        ("256 amp channels_last", False, both, {**FULL, **CHANNELS_LAST}),
        ("256 float32", False, both, {**FULL, **FLOAT32}),
    ]
    for size, loading, methods, options in plans:
        for name, names in methods.items():
            title = f"{name}, {size}, {'with' if loading else 'without'} loading"
            overlays = [*names, *(["acdc_small"] if size.startswith("small") else [])]
            work_of = {"names": overlays, "loading": loading, "data": data, "datalist": datalist, "out": out / "run"}
            if name.startswith("bcp"):
                work_of["first_stage"] = []
            notes.add(title, lambda work_of=work_of, options=options: measure(**work_of, **options))


if __name__ == "__main__":
    main(*sys.argv[1:])
