# SPDX-License-Identifier: Apache-2.0
"""Make ``docs/benchmarks.md`` of what the benchmarks left: ``python tests/benchmarks/write_page.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
SPEED = DOCS / "results" / "speed"
METHOD = """# Benchmarks

Made by `python tests/benchmarks/write_page.py` from the files in `docs/results/speed` and
`docs/results/device/h100_speed.json`; the scripts beside it say how to measure again. Every claim is a ratio of
medians, measured in one run in which the variants take turns: seconds of the processor on a CPU, of the clock on a GPU,
whose work is waited for. The spread is the range between the quartiles, relative to the median.
"""
GPU = {
    "cps": "as it was: dictionary transforms in 4 workers, float16, weights channels first",
    "cps, device data": "with `device_data.json` and bfloat16",
    "cps, device data, graph": "and `--cuda_graph True`",
    "cps, device data, graph, channels last": "and weights channels-last, as they are now",
    "compiled": "and `--compile True`",
    "cps plain, device data, graph, channels last": "CPS with its own losses, not compiled",
    "supervised plain, device data, graph, channels last": "supervised learning, not compiled",
    "bcp, device data": "BCP, whose step is no graph",
}


def page() -> str:
    """The whole page."""
    return "\n".join([METHOD, *loss(), *step(), *gpu(), *inference()])


def loss() -> Iterator[str]:
    found = read("loss_cpu.json")
    yield "## Losses of a CPS step, forward and backward\n"
    yield (
        f"{environment(found)}. Ratios to MONAI's `DiceCELoss` with cross-entropy on pseudo-labels by `argmax`; *kept* "
        "is what is kept for the backward pass, as a multiple of the logits.\n"
    )
    yield from table(
        ("logits of a network", "losses", "ms", "ratio", "spread", "kept"),
        (
            (shape, name, row["ms"], row["ratio"], f"{row['spread']:.0%}", row["kept"])
            for shape, of in found["shapes"].items()
            for name, row in of["losses"].items()
        ),
    )


def step() -> Iterator[str]:
    found = read("step_cpu.json")
    yield "## A CPS + MetaSSL step on a CPU, data included\n"
    yield f"ACDC at `acdc_small`, float32. {environment(found)}. Ratios to the bare passes of both networks.\n"
    rows = found["steps"].items()
    yield from table(
        ("what", "ms", "ratio", "spread"),
        ((name, row["ms"], row["ratio"], f"{row['spread']:.0%}") for name, row in rows),
    )


def gpu() -> Iterator[str]:
    found = json.loads((DOCS / "results" / "device" / "h100_speed.json").read_text("utf-8"))
    times = {row["name"]: row for row in found["timings"]}
    ms = {name: times[name]["mean_ms"] for name in GPU}
    yield "## A CPS + MetaSSL step on a GPU, data included\n"
    yield (
        f"ACDC at 256 x 256, 12 + 12 slices, {found['environment']['card'].split(',')[0]}, torch "
        f"{found['environment']['torch']}; each row adds to the one above unless it says otherwise.\n"
    )
    yield from table(
        ("what", "ms a step", "steps a second", "times as fast"),
        ((text, ms[name], round(1e3 / ms[name], 1), round(ms["cps"] / ms[name], 2)) for name, text in GPU.items()),
    )
    volume = times["V-Net forward and backward"]
    yield (
        f"The device is busy for {times['profile']['busy']:.0%} of the time without compilation and for "
        f"{times['profile compiled']['busy']:.0%} with it: what is left is convolutions of 16 and 32 channels, at a "
        "quarter of the memory's speed. An interpolation that inductor does not take apart was written after these "
        "measurements and is not in them; no other card, no fp16 graph and no 3D training were measured.\n"
    )
    yield (
        "V-Net, 4 patches of 112 x 112 x 80, bfloat16, forward and backward: "
        f"{volume['first']} ms with weights channels first, {volume['last']} ms channels-last.\n"
    )
    yield "Whether a step can be one CUDA graph, with the losses that the ACDC bundle gives a method:\n"
    yield from table(
        ("method", "graph"),
        (
            (name, "yes" if said is True else f"no: {said.rstrip('.')}")
            for name, said in sorted(found["methods"].items())
        ),
    )


def inference() -> Iterator[str]:
    if not (SPEED / "inference_cpu.json").is_file():
        return
    found = read("inference_cpu.json")
    yield "## Sliding windows of the left atrium\n"
    yield f"{found['about']} Windows of {' x '.join(map(str, found['patch_size']))}.\n"
    counts, whole = found["evaluations"], found["uncropped"]
    yield from table(
        ("what", "default: overlap 0.25, Gaussian", "papers: stride 18 x 18 x 4", "times fewer"),
        (
            (f"windows of {found['volumes']} volumes", counts["default"], counts["papers"], found["fewer_evaluations"]),
            (
                f"windows of {' x '.join(map(str, whole['shape']))}",
                whole["default"],
                whole["papers"],
                round(whole["papers"] / whole["default"], 2),
            ),
            *(
                (f"{row['case']}: {what}", row["default"][key], row["papers"][key], ratio(row, key))
                for row in found["timed"]
                for what, key in (("seconds of the processor", "cpu_seconds"), ("Dice", "dice"))
            ),
        ),
    )


def ratio(row: Mapping[str, Any], key: str) -> Any:
    return round(row["papers"][key] / row["default"][key], 2) if key == "cpu_seconds" else ""


def environment(found: Mapping[str, Any]) -> str:
    of = found["environment"]
    return f"{of['device']}, {of['threads']} thread, torch {of['torch']}, MONAI {of['monai']}, commit {of['commit']}"


def table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""


def read(name: str) -> dict[str, Any]:
    return json.loads((SPEED / name).read_text("utf-8"))


if __name__ == "__main__":
    (DOCS / "benchmarks.md").write_text(page(), encoding="utf-8")
