# SPDX-License-Identifier: Apache-2.0
"""Cost of a CPS + MetaSSL step of the ACDC bundle, data included, beside the bare passes of its two networks.

``python tests/benchmarks/step.py DATA [--out FILE]``: each variant in a process of its own, in turn, several times;
seconds of the processor (on a GPU: of the clock, the device waited for) a step, after the first ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "device"))
STEPS, WARM_UP, REPEATS = 14, 4, 3
CHANNELS_LAST = {"method": "$@method_def.to(@device, memory_format=torch.channels_last)"}
OFFLINE = ("device_data",)
VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "bare networks": ((), {}),
    "step": ((), {}),
    "step, device data": (OFFLINE, {}),
    "bare networks, channels last": ((), CHANNELS_LAST),
    "step, channels last": ((), CHANNELS_LAST),
    "step, device data, channels last": (OFFLINE, CHANNELS_LAST),
    "step, device data, channels last, compiled": (OFFLINE, {**CHANNELS_LAST, "compile": True}),
}


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds_of_a_step(training: Any) -> float:
    """Median over steps of a training through the bundle's own config."""
    from ignite.engine import Events

    trainer = training.parser.get_parsed_content("train::trainer")
    ends: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: ends.append(clock()))
    trainer.run()
    steps = [b - a for a, b in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False)]
    return statistics.median(steps)


def seconds_of_bare_networks(training: Any) -> float:
    """Forward of both networks on a batch of both streams, and backward of the sum of their logits."""
    method = training.parser.get_parsed_content("method").train()
    loader = training.parser.get_parsed_content("train::paired_dataloader")
    batch = next(iter(loader))
    device = training.parser.get_parsed_content("device")
    images = torch.cat(
        [
            batch[stream]["image"].as_tensor()
            if hasattr(batch[stream]["image"], "as_tensor")
            else batch[stream]["image"]
            for stream in ("labeled", "unlabeled")
        ]
    ).to(device)
    seconds = []
    for _ in range(STEPS):
        start = clock()
        (method.network(images).sum() + method.second_network(images).sum()).backward()
        method.zero_grad()
        seconds.append(clock() - start)
    return statistics.median(seconds[WARM_UP:])


def measure(name: str, data: str) -> float:
    from workflows import few_patients, workflow

    overlays, options = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        size = [] if torch.cuda.is_available() else ["acdc_small"]
        plan = {"iterations": STEPS, "iterations_per_epoch": STEPS, "num_workers": 0, "amp": False}
        training = workflow(["cps", *size, *overlays], data, few_patients(data, out), out, **{**plan, **options})
        return (seconds_of_bare_networks if name.startswith("bare") else seconds_of_a_step)(training)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the ACDC release")
    parser.add_argument("--only", help="measure one variant in this process and print its seconds")
    parser.add_argument("--names", nargs="*", default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.only:
        sys.stdout.write(f"SECONDS {measure(options.only, options.data)}\n")
        return
    seconds: dict[str, list[float]] = {name: [] for name in options.names}
    for _ in range(options.repeats):
        for name in options.names:
            command = [sys.executable, __file__, options.data, "--only", name]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds[name].append(float(said.rpartition("SECONDS ")[2]))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    base = medians[options.names[0]]
    for name, value in medians.items():
        spread = (max(seconds[name]) - min(seconds[name])) / value
        sys.stdout.write(f"{name:45} {value:8.4f} s  {value / base:5.2f} x  spread {spread:.0%}\n")
    if options.out is not None:
        options.out.write_text(json.dumps({"seconds": seconds, "torch": torch.__version__}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
