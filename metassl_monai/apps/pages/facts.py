# SPDX-License-Identifier: Apache-2.0
"""What was decided, trained, and with which data."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from metassl_monai.data.datalist import parse_json
from metassl_monai.data.datalist_structure import LISTS
from metassl_monai.report.page import Section, Table

from .run import TrainedRun

__all__ = ["data_section", "decisions_section", "next_section", "training_section"]

_SETTINGS = {
    "method_name": "method",
    "preset": "losses (preset)",
    "iterations": "iterations",
    "labeled_batch_size": "labeled images a step",
    "unlabeled_batch_size": "unlabeled images a step",
    "patch_size": "patch, in voxels",
    "spatial_size": "size of a slice or tile, in pixels",
    "features": "features of each level",
    "seed": "seed",
    "keep": "network that is kept",
    "device": "device",
}
_ENVIRONMENT = {
    "network": "network",
    "parameters": "weights of the network",
    "optimizer": "optimizer",
    "learning_rate": "learning rate at the start",
    "device": "device",
    "git_commit": "commit of the code",
    "python": "Python",
    "torch": "PyTorch",
    "monai": "MONAI",
    "metassl_monai": "metassl_monai",
}


def decisions_section(run: TrainedRun) -> Iterator[Section]:
    """Say what the plan of a folder's bundle decided, and why."""
    file = run.folder / "plan.json"
    if file.is_file():
        rows = [(it["name"], _text(it["value"]), str(it["reason"])) for it in parse_json(file)["decisions"]]
        table = Table(f"{run.name}_decisions", "Decisions of the plan.", ("decision", "value", "reason"), rows)
        yield Section("What was decided, and why", tables=[table])


def data_section(run: TrainedRun) -> Iterator[Section]:
    """Say what the lists of the data hold."""
    file = run.datalist()
    if file is None:
        return
    content = parse_json(file)
    names = ", ".join(f"{value} {name}" for value, name in content["labels"].items())
    lists = {key: content[key] for key in LISTS if content.get(key)}
    rows = [(key, str(len(items)), str(len({item["subject"] for item in items}))) for key, items in lists.items()]
    table = Table(f"{run.name}_data", "Cases and subjects of each list.", ("list", "cases", "subjects"), rows)
    text = [f"Classes: {names}.", f"Datalist: {file}, made by {_maker(content)}."]
    yield Section("The data", text, tables=[table])


def training_section(run: TrainedRun) -> Section:
    """Say what was trained, how, and on what."""
    title = "What was trained"
    if run.config_file is None:
        return Section(title, ["Nothing yet, or the training left no config_*.json here."])
    values = {label: _text(run.config[name]) for name, label in _SETTINGS.items() if name in run.config}
    values |= {label: _text(run.environment[name]) for name, label in _ENVIRONMENT.items() if name in run.environment}
    rows = [*values.items(), *_reached(run), ("all settings", run.config_file.name)]
    table = Table(f"{run.name}_settings", "Settings and versions.", ("setting", "value"), rows)
    return Section(title, tables=[table])


def next_section(run: TrainedRun) -> Section:
    """Say how to go on."""
    name, checkpoint = shlex.quote(str(run.folder)), ""
    if not (run.folder / "configs" / "inference.json").is_file():
        name, checkpoint = "BUNDLE", f" --checkpoint {shlex.quote(str(run.model))}"
    if not run.model.is_file():
        return Section("How to go on", commands=[f"metassl train {name}"])
    commands = [
        f"metassl infer {name} --images NEW_SCANS --out PREDICTIONS{checkpoint}",
        f"metassl suggest {name} --out annotate_next.csv{checkpoint}",
    ]
    text = ["Segment new images; and find out which unlabeled cases are worth annotating next."]
    return Section("How to go on", text, commands=commands)


def _reached(run: TrainedRun) -> Iterator[tuple[str, str]]:
    if run.history:
        epochs = len(run.history["epoch"])
        yield "iterations done", f"{run.history['iteration'][-1]:.0f} in {epochs} epoch{'s' if epochs > 1 else ''}"
        scores = [value for value in run.history.get("val_mean_dice", ()) if not math.isnan(value)]
        if scores:
            yield "best mean Dice in validation", f"{max(scores):.3f}"


def _maker(content: dict[str, Any]) -> str:
    source = content.get("source")
    if not isinstance(source, dict) or "reader" not in source:
        return "hand"
    return f"the reader {source['reader']}, seed {source.get('seed', 'none')}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        device = re.fullmatch(r"\$torch\.device\('([^']*)'(.*)\)", value)
        return value if device is None else f"{device[1]}, or the CPU where there is none" if device[2] else device[1]
    if isinstance(value, Sequence):
        return " x ".join(map(str, value)) if all(isinstance(it, int | float) for it in value) else json.dumps(value)
    return json.dumps(value)
