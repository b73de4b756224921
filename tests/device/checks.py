# SPDX-License-Identifier: Apache-2.0
"""Whether losses and methods do on the device what they do on the CPU: ``checks.py DATA WORK NOTES SECONDS``."""

from __future__ import annotations

import copy
import csv
import inspect
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor, nn
from workflows import BUNDLE, CUDA, DEVICE, Notes, few_patients, workflow

from metassl_monai import losses
from metassl_monai.bundle import user_mistake
from metassl_monai.bundle.locate import bundle_path
from metassl_monai.losses import PRESETS, metassl_losses

CLASSES, ITERATIONS = 4, 4
SIZES = {
    "spatial_size": [64, 64],
    "features": [8, 16, 32, 64, 128],
    "labeled_batch_size": 4,
    "unlabeled_batch_size": 4,
    "iterations": ITERATIONS,
    "iterations_per_epoch": ITERATIONS,
    "pretrain_iterations": ITERATIONS,
    "num_workers": 0,
}


def all_losses() -> dict[str, nn.Module]:
    """The losses of every preset, and every other loss that needs no arguments, with its defaults."""
    found: dict[str, nn.Module] = {}
    for preset in PRESETS:
        found[f"{preset} labeled"], found[f"{preset} unlabeled"] = metassl_losses(CLASSES, preset)
    for name in losses.__all__:
        kind = getattr(losses, name)
        if inspect.isclass(kind) and name.endswith("Loss"):
            needed = [p for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
            if not any(p.kind is p.POSITIONAL_OR_KEYWORD for p in needed):
                found[name] = kind()
    return found


def sample(dtype: torch.dtype, side: int = 48) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shape = (2, CLASSES, side, side)
    input, reference = (2 * torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(2))
    target = torch.randint(0, CLASSES, (2, 1, side, side), generator=random)
    mask = torch.rand((2, 1, side, side), generator=random) < 0.6
    return {"input": input.to(dtype), "reference": reference.to(dtype), "target": target, "mask": mask}


def value_and_gradient(loss: nn.Module, device: torch.device, dtype: torch.dtype, autocast: Any = None) -> list[Tensor]:
    """Loss, its gradient and its buffers after two calls, on the CPU in float64."""
    loss = copy.deepcopy(loss).to(device)
    of = {key: value.to(device) for key, value in sample(torch.float64).items()}
    logits = of["input"].to(dtype).requires_grad_()
    wanted = inspect.signature(loss.forward).parameters
    others = {"reference": of["reference"].to(dtype), "target": of["target"], "mask": of["mask"]}
    given = {key: value for key, value in others.items() if key in wanted}
    with torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        for _ in range(2):
            value = loss(logits, **given)
    value.backward()
    assert logits.grad is not None
    results = [value.detach(), logits.grad, *(b for b in loss.buffers() if b.is_floating_point())]
    return [result.detach().cpu().double() for result in results]


def largest_error(first: list[Tensor], second: list[Tensor]) -> float:
    """Largest relative difference in norm, over loss, gradient and thresholds."""
    assert all(part.isfinite().all() for part in first)
    return max(((a - b).norm() / b.norm().clamp(min=1e-12)).item() for a, b in zip(first, second, strict=True))


def check_loss(loss: nn.Module) -> dict[str, float]:
    """Equal to the CPU in float64; near it in float32; finite and near it with half-precision logits in autocast."""
    cpu = torch.device("cpu")
    truth = value_and_gradient(loss, cpu, torch.float64)
    errors = {"float64": largest_error(value_and_gradient(loss, DEVICE, torch.float64), truth)}
    assert errors["float64"] < 1e-9, errors
    single = value_and_gradient(loss, cpu, torch.float32)
    errors["float32"] = largest_error(value_and_gradient(loss, DEVICE, torch.float32), single)
    assert errors["float32"] < 1e-4, errors
    for dtype in (torch.float16, torch.bfloat16):
        # the same rounded logits in float32, so that only the arithmetic differs
        rounded = value_and_gradient(_Rounded(loss, dtype), cpu, torch.float32)
        half = value_and_gradient(_Rounded(loss, dtype, keep=True), DEVICE, torch.float32, autocast=dtype)
        errors[str(dtype).removeprefix("torch.")] = largest_error(half, rounded)
    assert max(errors["float16"], errors["bfloat16"]) < 0.02, errors
    return errors


class _Rounded(nn.Module):
    """A loss that sees logits as a network under autocast gives them; ``keep`` leaves them in half precision."""

    def __init__(self, loss: nn.Module, dtype: torch.dtype, keep: bool = False) -> None:
        super().__init__()
        self.loss, self.dtype, self.keep = loss, dtype, keep
        self.forward = self._with_target if "target" in inspect.signature(loss.forward).parameters else self._without

    def _round(self, logits: Tensor) -> Tensor:
        half = logits.to(self.dtype)
        return half if self.keep else half.float()

    def _with_target(self, input: Tensor, target: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        return self.loss(self._round(input), target, self._round(reference), mask=mask)

    def _without(self, input: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        return self.loss(self._round(input), self._round(reference), mask=mask)


def check_two_streams() -> None:
    """Losses that run on two CUDA streams at a time give what they give one after the other."""
    if not CUDA:
        return
    pair = [loss.to(DEVICE) for loss in metassl_losses(CLASSES, "ref_cps2d")]
    of = {key: value.to(DEVICE) for key, value in sample(torch.float32, side=256).items()}
    calls = [(of["input"], of["target"], of["reference"]), (of["input"], of["reference"])]
    alone = [copy.deepcopy(loss)(*call).item() for loss, call in zip(pair, calls, strict=True)]
    torch.cuda.synchronize()
    streams, values = [torch.cuda.Stream(), torch.cuda.Stream()], []
    for loss, call, stream in zip(pair, calls, streams, strict=True):
        with torch.cuda.stream(stream):
            values.append(loss(*call))
    torch.cuda.synchronize()
    for value, expected in zip(values, alone, strict=True):
        assert math.isclose(value.item(), expected, rel_tol=1e-5), (value.item(), expected)


def overlays() -> list[str]:
    """Every overlay of the bundle that defines a method."""
    files = sorted((bundle_path(BUNDLE) / "configs").glob("*.json"))
    return [file.stem for file in files if file.stem != "train" and "method_def" in json.loads(file.read_text())]


def check_training(names: list[str], data: str, datalist: Path, out: Path, **overrides: Any) -> dict[str, Any]:
    """A short training through the real config: finite losses, a network on the device, a file with its weights."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    training = workflow(names, data, datalist, out, **{**SIZES, **overrides})
    training.run()
    network = training.parser.get_parsed_content("network")
    assert {p.device.type for p in network.parameters()} == {DEVICE.type}
    assert all(p.isfinite().all() for p in network.parameters())
    with (out / "history.csv").open(encoding="utf-8", newline="") as file:
        loss = float(list(csv.DictReader(file))[-1]["loss"])
    assert math.isfinite(loss), f"loss={loss}"
    weights = torch.load(out / "models" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
    return {"loss": loss, **({"peak_mib": torch.cuda.max_memory_allocated() >> 20} if CUDA else {})}


def check_graph(data: str, datalist: Path, out: Path) -> dict[str, Any]:
    """A step that is one CUDA graph waits for nothing and trains like one that is not, as near as a repetition does.

    Without dropout and in float32; kernels that add in any order make two trainings drift apart.
    """
    if not CUDA:
        return {}
    still = {"amp": False, "network_def::dropout": [0.0] * 5, "iterations": 8, "iterations_per_epoch": 8}
    weights = []
    for number, graph in enumerate((False, False, True)):
        run, names = out / str(number), ["supervised", "plain", "device_data"]
        training = workflow(names, data, datalist, run, **{**SIZES, **still, "cuda_graph": graph})
        trainer = training.parser.get_parsed_content("train::trainer")
        if graph:  # from the first replay to the last iteration but one, which ends the epoch
            for iteration, mode in ((5, "error"), (7, "default")):
                event = Events.ITERATION_STARTED(once=iteration)
                trainer.add_event_handler(event, torch.cuda.set_sync_debug_mode, mode)
        training.run()
        state = torch.load(run / "models" / "model.pt", weights_only=True)
        weights.append(torch.cat([value.flatten() for value in state.values() if value.is_floating_point()]))
    plain, again, graphed = weights
    found = {name: ((one - plain).norm() / plain.norm()).item() for name, one in (("again", again), ("graph", graphed))}
    assert found["graph"] < 1e-5 + 3 * found["again"], found
    return found


def check_recorded(name: str, data: str, datalist: Path, out: Path) -> dict[str, Any]:
    """Whether a step can be a CUDA graph; in a process of its own, since a failure may leave the device in one."""
    code = "import sys, checks; checks.train_recorded(*sys.argv[1:])"
    command = [sys.executable, "-c", code, name, data, str(datalist), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    said = done.stderr.strip().rpartition("\n")[2]
    if done.returncode != 0 and "cannot be recorded" not in said:
        raise RuntimeError(said)
    return {"recorded": done.returncode == 0, **({"reason": said} if done.returncode else {})}


def train_recorded(name: str, data: str, datalist: str, out: str) -> None:
    """Train a few iterations with a CUDA graph, or end in the message of the refusal."""
    graph = {"cuda_graph": CUDA, "train::trainer::amp_kwargs": {"dtype": "$torch.bfloat16"}, "first_stage": []}
    graph |= {"iterations": 8, "iterations_per_epoch": 4}
    try:
        check_training([name, "device_data"], data, Path(datalist), Path(out), **graph)
    except RuntimeError as error:
        raise SystemExit(user_mistake(error) or error) from error


def main(data: str, work: str, notes_file: str, seconds: str) -> None:
    out, notes = Path(work), Notes(notes_file, float(seconds))
    out.mkdir(parents=True, exist_ok=True)
    for name, loss in all_losses().items():
        notes.add(f"loss {name}", lambda loss=loss: check_loss(loss))
    notes.add("two streams", check_two_streams)
    datalist = few_patients(data, out)
    notes.add("graph equals plain, without waiting", lambda: check_graph(data, datalist, out / "graph"))
    for name in overlays():
        notes.add(f"graph {name}", lambda name=name: check_recorded(name, data, datalist, out / f"{name}_graph"))
    for name in overlays():
        notes.add(f"method {name}", lambda name=name: check_training([name], data, datalist, out / name))
    for name in ("cps", "bcp", "fixmatch"):
        run, names = out / f"{name}_plain", [name, "plain"]
        notes.add(f"method {name} plain", lambda names=names, run=run: check_training(names, data, datalist, run))
    notes.add("amp off", lambda: check_training(["cps"], data, datalist, out / "float32", amp=False))
    bfloat = {"train::trainer::amp_kwargs": {"dtype": "$torch.bfloat16"}}
    notes.add("amp bfloat16", lambda: check_training(["cps"], data, datalist, out / "bfloat16", **bfloat))
    notes.add("compile", lambda: check_training(["cps"], data, datalist, out / "compile", compile=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
