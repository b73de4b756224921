# SPDX-License-Identifier: Apache-2.0
"""Cost of a CPS + MetaSSL step of the ACDC bundle, data included: ``python tests/benchmarks/step.py DATA``.

Beside it the bare forward and backward passes of its two networks, a loop of plain PyTorch with MONAI's losses on a
batch that lies ready, and with ``--before DIR`` the step of another checkout. Each variant runs in a process of its
own, in turn; a number is the median over the steps after the first ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Events
from measuring import CUDA, clock, environment, show, summary, write
from monai.losses import DiceCELoss

sys.path.insert(0, str(Path(__file__).parents[1] / "device"))
from workflows import few_patients, workflow

STEPS, WARM_UP = (60, 20) if CUDA else (16, 4)
BASE = "bare networks"


def steps_of(seconds: list[float]) -> float:
    return statistics.median(seconds[WARM_UP:])


def whole_step(training: Any) -> float:
    """A training through the bundle's own config."""
    trainer = training.parser.get_parsed_content("train::trainer")
    ends = [clock()]
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: ends.append(clock()))
    trainer.run()
    return steps_of([after - before for before, after in pairwise(ends)])


def repeated(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(STEPS):
        start = clock()
        work()
        seconds.append(clock() - start)
    return steps_of(seconds)


def ready(training: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The method, and the images of both streams and the annotation of one batch on its device."""
    method, device = (training.parser.get_parsed_content(name) for name in ("method", "device"))
    batch = next(iter(training.parser.get_parsed_content("train::paired_dataloader")))
    images = torch.cat([torch.as_tensor(batch[stream]["image"]) for stream in ("labeled", "unlabeled")])
    return method.train(), images.to(device), torch.as_tensor(batch["labeled"]["label"]).to(device)


def bare_networks(training: Any) -> float:
    method, images, _ = ready(training)

    def work() -> None:
        (method.network(images).square().mean() + method.second_network(images).square().mean()).backward()
        method.zero_grad()

    return repeated(work)


def plain_loop(training: Any) -> float:
    """Cross pseudo supervision as one would write it by hand."""
    method, images, target = ready(training)
    supervised, half = DiceCELoss(to_onehot_y=True, softmax=True), len(target)
    networks = [method.network, method.second_network]
    optimizer = torch.optim.SGD([p for network in networks for p in network.parameters()], lr=0.01, momentum=0.9)

    def work() -> None:
        first, second = (network(images) for network in networks)
        loss = supervised(first[:half], target) + supervised(second[:half], target)
        loss = loss + 0.1 * F.cross_entropy(first[half:], second[half:].detach().argmax(1))
        loss = loss + 0.1 * F.cross_entropy(second[half:], first[half:].detach().argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return repeated(work)


def batches(training: Any) -> float:
    """The input alone."""
    loader = iter(training.parser.get_parsed_content("train::paired_dataloader"))
    return repeated(lambda: next(loader))


ON_DEVICE = ("device_data",)
VARIANTS: dict[str, tuple[Callable[[Any], float], tuple[str, ...], dict[str, Any]]] = {
    BASE: (bare_networks, (), {}),
    "plain PyTorch loop": (plain_loop, (), {}),
    "step before": (whole_step, (), {}),
    "step": (whole_step, (), {}),
    "step, data on the device": (whole_step, ON_DEVICE, {}),
    "step, data on the device, compiled": (whole_step, ON_DEVICE, {"compile": True}),
    "input": (batches, (), {}),
    "input, data on the device": (batches, ON_DEVICE, {}),
}


def measure(name: str, data: str) -> float:
    kind, overlays, options = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        size = [] if CUDA else ["acdc_small"]
        plan = {"iterations": STEPS, "iterations_per_epoch": STEPS, "num_workers": 0, "amp": CUDA}
        training = workflow(["cps", *size, *overlays], data, few_patients(data, out), out, **{**plan, **options})
        return kind(training)


def in_a_process(name: str, data: str, before: str | None) -> float:
    here = str(Path(__file__).parents[2])
    paths = {"PYTHONPATH": os.pathsep.join([str(before) if name.endswith("before") else here, *sys.path[:1]])}
    command = [sys.executable, __file__, data, "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **paths}, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(done.stdout.rpartition("SECONDS ")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the ACDC release")
    parser.add_argument("--only", help="measure one variant in this process and print its seconds")
    parser.add_argument("--before", help="another checkout of this project")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.only:
        sys.stdout.write(f"SECONDS {measure(options.only, options.data)}\n")
        return
    names = [name for name in VARIANTS if options.before or not name.endswith("before")]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name in names:
            seconds[name].append(in_a_process(name, options.data, options.before))
    found = summary(seconds, BASE)
    sys.stdout.write(f"{environment()}\n")
    show("CPS + MetaSSL, ACDC", found)
    write(options.out, {"about": __doc__, "steps": found})


if __name__ == "__main__":
    main()
