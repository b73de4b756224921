# SPDX-License-Identifier: Apache-2.0
"""How a training went: its curves, and the pictures that it drew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from metassl_monai.report import history_figure
from metassl_monai.report.page import Picture, Section, file_picture, figure_picture

from .run import TrainedRun

__all__ = ["curves_section", "pictures_section"]

_CURVES = {
    "val_*dice": ("Dice of the validation cases", "Dice", False),
    "loss": ("Losses", "loss", True),
    "learning_rate": ("Learning rate", "learning rate", False),
    "regions": ("Share of the voxels in each region", "fraction", True),
    "threshold": ("Confidence thresholds of each class", "confidence", True),
}
_CAPTIONS = {
    "epoch": "Labeled training images of the last pictured epoch: image, annotation, prediction, regions of the loss",
    "validation": "Validation cases in the last pictured epoch: annotation and prediction",
    "unlabeled": "Unlabeled images of the last pictured epoch, with hidden annotations that no training reads",
    "regions_over_training": "One unlabeled image over the training",
    "accuracy": "Correct references in each region over the epochs",
    "pseudo_labels": "Dice of the pseudo-labels of unlabeled images over the epochs",
}
_DRAWN_HERE = frozenset({"counts", "losses", "thresholds", "validation_dice"})
"""Curves that the training drew and that this page has in another form."""


def curves_section(run: TrainedRun) -> Iterator[Section]:
    """Draw the curves of a training's history."""
    pictures = []
    for prefix, (caption, unit, large) in _CURVES.items():
        if any(fnmatchcase(name, f"{prefix}*") for name in run.history):
            figure = history_figure(run.history, prefix, "", unit, run.labels)
            alt = f"{caption} over {len(run.history['epoch'])} epochs; {_last(run, prefix)}"
            pictures.append(figure_picture(figure, alt, f"{caption} over the epochs.", run.history_file, large))
    if pictures:
        yield Section("How the training went", pictures=pictures)


def pictures_section(run: TrainedRun) -> Iterator[Section]:
    """Show the last picture of each kind that the training drew."""
    files = sorted((run.folder / "pictures").glob("*.png"))
    last = {re.sub(r"_\d+$", "", file.stem): file for file in files}
    pictures = [_picture(file, kind) for kind, file in last.items() if kind not in _DRAWN_HERE]
    if pictures:
        yield Section("Pictures of the training", pictures=pictures)


def _picture(file: Path, kind: str) -> Picture:
    caption = _CAPTIONS.get(kind, kind.replace("_", " "))
    return file_picture(file, alt=f"{caption} ({file.name})", caption=f"{caption}.")


def _last(run: TrainedRun, prefix: str) -> str:
    """Say the last values of a few metrics, for readers who do not see the curves."""
    names = [name for name in run.history if fnmatchcase(name, f"{prefix}*")]
    return "in the last one " + ", ".join(f"{name} {run.history[name][-1]:.3g}" for name in names[:8])
