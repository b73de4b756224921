# SPDX-License-Identifier: Apache-2.0
"""How a training went: its curves, and the pictures that it drew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from metassl_monai.report import history_figure
from metassl_monai.report.curves import history_panels
from metassl_monai.report.page import Picture, Section, figure_picture, file_picture
from metassl_monai.report.palette import REGION_NAMES
from metassl_monai.report.words import curve_name, panel_name

from .run import TrainedRun

__all__ = ["curves_section", "pictures_section"]

_CURVES = {
    "val_*dice": "Dice",
    "loss": "loss",
    "learning_rate": "learning rate",
    "regions": "fraction",
    "threshold": "confidence",
    "hidden/*/accuracy": "fraction",
    "hidden/*/dice": "Dice",
}
"""What the metrics under a prefix measure, in the order of the page."""

_CAPTIONS = {
    "epoch": "Labeled training images of the last pictured epoch: image, annotation, prediction, regions of the loss",
    "validation": "Validation cases in the last pictured epoch: annotation and prediction",
    "unlabeled": "Unlabeled training images in the last pictured epoch: reference, prediction, regions of the loss",
    "unlabeled_over_training": "One unlabeled training image over the training",
    "monitored": "Unlabeled images in the last pictured epoch, with hidden annotations that no training reads",
    "monitored_over_training": "One unlabeled image over the training, with its hidden annotation",
}
_DRAWN_HERE = frozenset(
    {"accuracy", "counts", "learning_rate", "losses", "pseudo_labels", "thresholds", "validation_dice"}
)
"""Curves that the training drew and that this page has in another form."""


def curves_section(run: TrainedRun) -> Iterator[Section]:
    """Draw the curves of a training's history, a picture each, since a phone shows one beside the other too small."""
    pictures = [picture for prefix, unit in _CURVES.items() for picture in _curves(run, prefix, unit)]
    if pictures:
        regions = "; ".join(f"{name}: {meaning}" for name, meaning in REGION_NAMES.items())
        has_regions = any(name.startswith("regions/") for name in run.history)
        yield Section("How the training went", [f"Regions: {regions}."] if has_regions else [], pictures=pictures)


def _curves(run: TrainedRun, prefix: str, unit: str) -> Iterator[Picture]:
    panels = history_panels(run.history, prefix)
    highest = max((value for names in panels.values() for name in names for value in run.history[name]), default=0.0)
    for panel, names in panels.items():
        shown = {name: run.history[name] for name in ("epoch", *names)}
        figure = history_figure(shown, prefix, "", unit, run.labels)
        figure.axes[0].set_ylim(0, 1.05 * highest if highest > 0 else None)  # one axis for all panels of a kind
        title = panel_name(panel or names[0])
        last = ", ".join(f"{curve_name(name, run.labels)} {run.history[name][-1]:.3g}" for name in names)
        alt = f"{title}, over {len(run.history['epoch'])} epochs; in the last one: {last}"
        yield figure_picture(figure, alt, f"{title}, by epoch.", run.history_file)


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
