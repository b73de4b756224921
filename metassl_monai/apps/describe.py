# SPDX-License-Identifier: Apache-2.0
"""Tells what of a bundle's training can be chosen on the command line."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import bundle_path

__all__ = ["describe_bundle_among", "describe_training"]

IDS = {
    "dataset_dir": "folder of the images",
    "datalist": "which cases are labeled, unlabeled, for validation and for the test",
    "output_dir": "folder of networks, curves and pictures",
    "iterations": "steps of the training",
    "labeled_batch_size": "labeled images in a step",
    "unlabeled_batch_size": "unlabeled images in a step",
    "spatial_size": "size of a slice or tile",
    "patch_size": "size of a patch",
    "features": "channels of the network, level by level",
    "optimizer::lr": "learning rate",
    "preset": "of the MetaSSL losses",
    "ramp::maximum": "final weight of the unlabeled images",
    "seed": "of all random numbers",
    "val_interval": "epochs from one validation to the next",
    "keep": "the best network of the validation, or the last",
    "device": "such as cpu or cuda:1",
    "amp": "half precision",
    "num_workers": "processes that read",
}
"""Ids that people change, with what they are."""

_NO_OVERLAYS = ("train", "inference", "evaluate", "metadata", "tracking", "mean_of_two", "dualnet_inference")
"""Configs that do not change a training."""


def describe_bundle_among(words: Sequence[str]) -> str:
    """Describe the training of the first bundle among the words of a command line, whose other words are values.

    Args:
        words: names or folders of bundles, and anything else.

    Returns:
        The text; empty where no word is a bundle.
    """
    return next(map(describe_training, _bundles(words)), "")


def describe_training(bundle: Path) -> str:
    """List the methods, the other overlays and the ids that people change, each with its default.

    Args:
        bundle: the bundle's folder.

    Example:
        >>> text = describe_training(bundle_path("phantom_segmentation"))
        >>> "--iterations 250" in text and "mean_teacher" in text
        True
    """
    contents = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in bundle.glob("configs/*.json")}
    train = contents["train"]
    overlays = {name: str(contents[name].get("_desc_", "")) for name in sorted(contents.keys() - {*_NO_OVERLAYS})}
    methods = {
        name: text for name, text in overlays.items() if "method_name" in contents[name] and "Give it after" not in text
    }
    others = {name: text for name, text in overlays.items() if name not in methods}
    found = {name: _value(train, name) for name in IDS}
    ids = {f"--{name} {value}": IDS[name] for name, value in found.items() if value is not None}
    default = train.get("method_name", "the one of configs/train.json")
    lines = [
        *_paragraph(f"{bundle.name}: {train.get('_desc_', '')}"),
        *_table(f"Methods (--method NAME; {default} if left out)", methods),
        *_table("Further configs (--overlay NAME)", others),
        *_table("Ids (--ID VALUE; every id of configs/train.json can be given)", ids),
    ]
    return "\n".join(lines)


def _bundles(words: Sequence[str]) -> Iterator[Path]:
    for word in words:
        try:
            yield bundle_path(word)
        except UserError:
            continue


def _value(config: Mapping[str, Any], name: str) -> str | None:
    value: Any = config
    for part in name.split("::"):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value if isinstance(value, str) else json.dumps(value)


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent=" ", subsequent_indent=" ")


def _table(title: str, rows: Mapping[str, str]) -> list[str]:
    lines = ["", f" {title}"]
    indent = " " * 26
    for name, text in rows.items():
        # what is too long for its column has a line of its own
        name, first = (f"   {name:<22} ", True) if len(name) <= 22 else (f"   {name}", False)
        lines += [] if first else [name]
        lines += textwrap.wrap(text, _width(), initial_indent=name if first else indent, subsequent_indent=indent)
    return lines


def _width() -> int:
    return max(60, min(110, shutil.get_terminal_size().columns - 1))
