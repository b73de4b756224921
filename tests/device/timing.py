# SPDX-License-Identifier: Apache-2.0
"""Milliseconds and memory of a training iteration, through the real configs: ``timing.py DATA WORK NOTES SECONDS``."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from workflows import CUDA, Notes, few_patients, workflow

SIDE, ITERATIONS, WARM_UP = (256, 130, 30) if CUDA else (32, 8, 5)
FULL = {"spatial_size": [SIDE, SIDE], "num_workers": 4 if CUDA else 0}
ON_DEVICE = {"train::trainer::amp_kwargs": {"dtype": "$torch.bfloat16"}}
GRAPH = {**ON_DEVICE, "cuda_graph": CUDA}
CHANNELS_LAST = {"method": "$@method_def.to(@device, memory_format=torch.channels_last)"}
ALL = {**GRAPH, **CHANNELS_LAST}


def measure(
    names: list[str], data: str, datalist: Path, out: Path, free: bool = False, **options: Any
) -> dict[str, Any]:
    """Train for one epoch; mean between two ends of iterations at which the device is waited for.

    Args:
        free: let cuDNN try its algorithms and take those that are not deterministic.
    """
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    one_epoch = {"iterations": ITERATIONS, "iterations_per_epoch": ITERATIONS}
    training = workflow(names, data, datalist, out, **{**one_epoch, **FULL, **options})
    trainer = training.parser.get_parsed_content("train::trainer")
    ends: list[float] = []

    def note() -> None:
        if trainer.state.iteration in (WARM_UP, ITERATIONS):
            if CUDA:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    def choose() -> None:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True

    if free:
        trainer.add_event_handler(Events.ITERATION_STARTED(once=1), choose)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    trainer.run()
    found = {"mean_ms": round(1e3 * (ends[1] - ends[0]) / (ITERATIONS - WARM_UP), 2)}
    return {**found, **({"peak_mib": torch.cuda.max_memory_allocated() >> 20} if CUDA else {})}


def profile(names: list[str], data: str, datalist: Path, out: Path, **options: Any) -> dict[str, Any]:
    """What the device does in ten iterations: how much of the time it is busy, and with what."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    last = WARM_UP + 10
    sizes = {"iterations": last, "iterations_per_epoch": last}
    training = workflow(names, data, datalist, out, **{**sizes, **FULL, **options})
    trainer = training.parser.get_parsed_content("train::trainer")
    recorder = profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])])
    marks: list[float] = []

    def start() -> None:
        if CUDA:
            torch.cuda.synchronize()
        recorder.__enter__()
        marks.append(time.perf_counter())

    def stop() -> None:
        if CUDA:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        recorder.__exit__(None, None, None)

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=WARM_UP), start)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=last - 1), stop)
    trainer.run()
    averages = recorder.key_averages()
    order = "self_device_time_total" if CUDA else "self_cpu_time_total"
    sys.stdout.write(averages.table(sort_by=order, row_limit=45, max_name_column_width=90) + "\n")
    sys.stdout.write(averages.table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=60) + "\n")
    busy = sum(event.self_device_time_total for event in averages) / 1e6 if CUDA else 0.0
    wall = marks[1] - marks[0]
    return {"busy": round(busy / wall, 3), "ms": round(1e3 * wall / (last - 1 - WARM_UP), 2)}


def main(data: str, work: str, notes_file: str, seconds: str) -> None:
    out, notes = Path(work), Notes(notes_file, float(seconds))
    out.mkdir(parents=True, exist_ok=True)
    datalist = few_patients(data, out)
    cps, fast = ["cps"], ["cps", "device_data"]
    plans: list[tuple[str, list[str], dict[str, Any]]] = [
        ("cps", cps, {}),
        ("cps, device data", fast, ON_DEVICE),
        ("cps, device data, graph", fast, GRAPH),
        ("cps, device data, graph, channels last", fast, ALL),
        ("cps, device data, graph, channels last, any algorithm", fast, {**ALL, "free": True}),
        ("cps plain, device data, graph, channels last", ["cps", "plain", "device_data"], ALL),
        ("supervised plain, device data, graph, channels last", ["supervised", "plain", "device_data"], ALL),
        ("cps stronger transforms, device data, graph, channels last", ["cps", "augmented", "device_data"], ALL),
        ("bcp, device data", ["bcp", "device_data"], {**ON_DEVICE, **CHANNELS_LAST, "first_stage": []}),
        ("cps, device data, graph, channels last, compiled", fast, {**ALL, "compile": True}),
    ]
    for number, (title, names, options) in enumerate(plans):
        run = out / f"run{number}"
        notes.add(title, lambda names=names, run=run, options=options: measure(names, data, datalist, run, **options))
        if number == 3:
            notes.add("profile", lambda: profile(fast, data, datalist, out / "profile", **ALL))


if __name__ == "__main__":
    main(*sys.argv[1:])
