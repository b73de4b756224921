# SPDX-License-Identifier: Apache-2.0
"""Pictures of what the network sees, is told, and says, and of the regions its loss makes of that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import decollate_batch
from torch import Tensor

from metassl_monai.report import history_figure, overlay_figure, read_history

from .drawing import planes, write_figure
from .interval import is_due
from .nonfatal import nonfatal
from .region_pictures import RegionPictures
from .unlabeled_pictures import UnlabeledPictures

__all__ = ["TrainingCurves", "TrainingPictures"]

_CURVES = {
    "losses": ("loss", "losses, as they enter the total", "loss"),
    "validation_dice": ("val_*dice", "Dice of the validation cases", "Dice"),
    "learning_rate": ("learning_rate", "learning rate at the end of the epoch", "learning rate"),
    "counts": ("pixels", "voxels of each region a step; UC and US: foreground", "voxels"),
    "accuracy": ("hidden/*/accuracy", "voxels whose reference is right, by region", "fraction"),
    "pseudo_labels": ("hidden/*/dice", "pseudo-labels against hidden labels", "Dice"),
    "thresholds": ("threshold", "thresholds by class", "confidence"),
}


_DRAWN = re.compile(rf"(epoch|validation|unlabeled|monitored)_(\d{{4,}}|over_training)|{'|'.join(_CURVES)}")
"""Names of pictures that a training draws."""


class TrainingPictures:
    """Draw labeled samples of the last batch of an epoch: image, annotation, prediction, region map.

    Beside ``epoch_<n>.png`` the unlabeled samples of the first batch are drawn as ``unlabeled_<n>.png`` and
    ``unlabeled_over_training.png``, see :class:`RegionPictures`; a method without unlabeled pairs has none.

    Of volumes several slices are drawn, evenly over what is annotated. A method that mixes images makes its regions on
    the mixtures: the maps are those, beside the images as they were. A picture that cannot be written is a warning.

    A training that begins with its first epoch removes the pictures of an earlier one, lest they be taken for its own.

    Args:
        directory: where the pictures are written.
        interval: epochs between two pictures; the last epoch is always drawn.
        samples: number of samples in a picture.
        slices: number of slices of each volume.
        labels: name of each class value, for a legend.
    """

    def __init__(
        self,
        directory: str | Path,
        interval: int = 1,
        samples: int = 3,
        slices: int = 3,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.interval = interval
        self.samples = samples
        self.slices = slices
        self.labels = labels
        self.unlabeled = UnlabeledPictures(RegionPictures(directory, interval, samples, slices, labels))

    def attach(self, engine: Engine) -> None:
        """Register on the beginning and on ``EPOCH_COMPLETED``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.clear)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        self.unlabeled.attach(engine)

    def clear(self, engine: Engine) -> None:
        """Remove what an earlier training in this folder drew, where a training begins with its first epoch."""
        if engine.state.epoch == 1:
            for file in self.directory.glob("*.png"):
                if _DRAWN.fullmatch(file.stem):
                    file.unlink()

    def __call__(self, engine: Any) -> None:
        """Draw and write the picture of the labeled samples in this epoch."""
        epoch = engine.state.epoch
        if is_due(engine, self.interval):
            with nonfatal(f"no picture of epoch {epoch}"):
                self._draw(engine, epoch)

    def _draw(self, engine: Any, epoch: int) -> None:
        output = engine.state.output
        if isinstance(output, Mapping):  # a trainer that was told not to take batches apart
            output = decollate_batch(output)
        output = output[: self.samples]
        regions = _labeled_regions(engine.unwrapped_method)
        cut = []
        for i, item in enumerate(output):
            image, label = item["image"][0], item["label"][0]
            maps = [image, label, item["pred"].argmax(dim=0), None if regions is None else regions[i, 0]]
            cut += planes(maps, label > 0, self.slices)
        images, labels, predictions, region_maps = zip(*(maps for _, maps in cut), strict=True)
        figure = overlay_figure(
            images,
            labels,
            predictions,
            None if regions is None else region_maps,
            title=f"labeled training samples, epoch {epoch}",
            truth_name="annotation",
            rows=[name for name, _ in cut],
            labels=self.labels,
        )
        write_figure(figure, self.directory / f"epoch_{epoch:04d}.png")


class TrainingCurves:
    """Draw the history of a training when it ends.

    Where it holds such metrics: ``losses.png``, ``learning_rate.png``, ``counts.png`` and ``thresholds.png`` from
    :class:`TrainingStatistics`, ``validation_dice.png``, ``accuracy.png`` and ``pseudo_labels.png`` from
    :class:`HiddenLabels`.

    Args:
        history: the file that :class:`History` writes; give this handler after that one.
        directory: where the figures are written.
        labels: name of each class value, for curves by class.
    """

    def __init__(self, history: str | Path, directory: str | Path, labels: Mapping[str, str] | None = None) -> None:
        self.history = Path(history)
        self.directory = Path(directory)
        self.labels = labels

    def attach(self, engine: Engine) -> None:
        """Register on ``COMPLETED``."""
        engine.add_event_handler(Events.COMPLETED, self.draw)

    def draw(self) -> None:
        """Draw and write the figures."""
        with nonfatal(f"no curves of {self.history}"):
            history = read_history(self.history)
            for name, (prefix, title, ylabel) in _CURVES.items():
                if any(fnmatchcase(metric, f"{prefix}*") for metric in history):
                    figure = history_figure(history, prefix, title, ylabel, self.labels)
                    write_figure(figure, self.directory / f"{name}.png")


def _labeled_regions(method: Any) -> Tensor | None:
    """Maps of the labeled samples, in their order: a pair may cover a part of them only, and the next one the rest."""
    maps = [getattr(loss, "regions", None) for loss in method.labeled_losses.values()]
    known = [regions for regions in maps if regions is not None]
    return torch.cat(known) if known else None
