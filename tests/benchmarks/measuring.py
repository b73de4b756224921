# SPDX-License-Identifier: Apache-2.0
"""How the benchmarks here measure: variants in turn, medians, spreads, and what they ran on."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

CUDA = torch.cuda.is_available()


def clock() -> float:
    """Seconds: of the processor, so that other work on the machine does not count; on a GPU when its work is done."""
    if CUDA:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def in_turn(variants: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each variant, each time one after the other, so that a slow minute is everybody's."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(warm_up + repeats):
        for name, work in variants.items():
            start = clock()
            work()
            if round_ >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def summary(seconds: Mapping[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Median in milliseconds, quartile range relative to it, and ratio of medians to ``base``."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    found = {}
    for name, values in seconds.items():
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        found[name] = {
            "ms": round(1e3 * medians[name], 3),
            "spread": round((high - low) / medians[name], 3),
            "ratio": round(medians[name] / medians[base], 3),
        }
    return found


def show(title: str, found: Mapping[str, Mapping[str, float]]) -> None:
    sys.stdout.write(f"{title}\n")
    for name, row in found.items():
        sys.stdout.write(f"  {name:44} {row['ms']:10.2f} ms  {row['ratio']:6.2f} x  spread {row['spread']:.0%}\n")


def environment() -> dict[str, Any]:
    """Versions, device and threads; the commit of this checkout."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "monai", "numpy")}
    device = torch.cuda.get_device_name() if CUDA else _processor()
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        **packages,
        "python": platform.python_version(),
        "device": device,
        "threads": torch.get_num_threads(),
        "commit": commit,
    }


def write(path: Path | None, content: Mapping[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"environment": environment(), **content}, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.processor()
