# SPDX-License-Identifier: Apache-2.0
"""What metrics are called where people read them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["curve_name", "panel_name"]

_PARTS = {
    "": "",
    "accuracy": "right references",
    "accuracy_foreground": "right references in the foreground",
    "dice": "Dice",
    "hidden": "hidden labels",
    "learning_rate": "learning rate",
    "loss": "loss",
    "pixels": "voxels",
    "pixels_foreground": "voxels of the foreground",
    "regions": "share of the voxels",
    "threshold": "threshold",
    "val_dice": "validation Dice",
    "val_mean_dice": "mean Dice in validation",
}


def panel_name(prefix: str) -> str:
    """Say in words what the metrics under a prefix have in common.

    Example:
        >>> panel_name("pixels/unlabeled/second_network")
        'voxels: unlabeled, second network'
        >>> panel_name("loss/labeled"), panel_name("")
        ('loss: labeled', '')
    """
    first, *others = [_PARTS.get(part, part.replace("_", " ")) for part in prefix.split("/")]
    return f"{first}: {', '.join(others)}" if others else first


def curve_name(name: str, labels: Mapping[str, str]) -> str:
    """Say in words what a metric is in its panel: a class by its name.

    Args:
        name: the metric, such as ``"threshold/labeled/network/2"``.
        labels: name of each class value.

    Example:
        >>> curve_name("threshold/labeled/network/2", {"2": "myocardium"}), curve_name("val_mean_dice", {})
        ('myocardium', 'mean Dice in validation')
    """
    last = name.rpartition("/")[2]
    return labels.get(last) or _PARTS.get(last, last.replace("_", " "))
