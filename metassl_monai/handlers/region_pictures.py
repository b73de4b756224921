# SPDX-License-Identifier: Apache-2.0
"""Pictures of the regions that a loss makes of unlabeled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metassl_monai.report import NO_REGION, quadripartition_figure

from .drawing import planes, write_figure
from .interval import is_due
from .judged_pairs import JudgedPair
from .nonfatal import nonfatal

__all__ = ["RegionPictures"]

_MOST_ROWS = 8


class _Row(NamedTuple):
    """What a row of a figure shows."""

    image: np.ndarray
    truth: np.ndarray | None
    reference: np.ndarray
    prediction: np.ndarray
    regions: np.ndarray | None


class RegionPictures:
    """Draw unlabeled images, hidden truth where it is known, reference, prediction and region map.

    For :class:`TrainingPictures` and :class:`HiddenLabels`. ``<name>_<epoch>.png`` shows the first images of a batch or
    those with the most annotated foreground (MetaSSL, Fig. 8), ``<name>_over_training.png`` the first of these over the
    epochs (Fig. 11), at most eight and the last one; after a resume, those since. Of volumes several slices are drawn,
    over the epochs the middle one of them. Where the pair does not count, the image alone is shown. A picture that
    cannot be written is a warning.

    Args:
        directory: where the pictures are written.
        interval: epochs between two pictures; the last epoch is always drawn.
        samples: number of samples in a picture.
        slices: number of slices of each volume.
        labels: name of each class value, for a legend.
        name: of the files.
    """

    def __init__(
        self,
        directory: str | Path,
        interval: int = 1,
        samples: int = 3,
        slices: int = 3,
        labels: Mapping[str, str] | None = None,
        name: str = "unlabeled",
    ) -> None:
        self.directory = Path(directory)
        self.interval = interval
        self.samples = samples
        self.slices = slices
        self.labels = labels
        self.name = name
        self.course: list[tuple[str, _Row]] = []
        self.calls = 0
        self.stride = 1

    def __call__(self, engine: Any, judged: JudgedPair, truth: Tensor | None = None) -> None:
        """Draw and write the pictures of this epoch.

        Args:
            engine: the trainer.
            judged: the pair.
            truth: hidden annotation, class indices ``(B, 1, *spatial)``.
        """
        if is_due(engine, self.interval):
            with nonfatal(f"no picture of the regions of epoch {engine.state.epoch}"):
                self._draw(engine.state.epoch, judged, truth)

    def _draw(self, epoch: int, judged: JudgedPair, truth: Tensor | None) -> None:
        chosen = list(range(min(self.samples, len(judged.image))))
        if truth is not None:
            chosen = (truth > 0).flatten(1).sum(dim=1).topk(len(chosen)).indices.tolist()
        cut = [_rows(judged, truth, i, self.slices) for i in chosen]
        names, rows = zip(*(row for sample in cut for row in sample), strict=True)
        self._write(rows, names, f"unlabeled images, epoch {epoch}", f"{self.name}_{epoch:04d}.png")
        now = (f"epoch {epoch}", cut[0][len(cut[0]) // 2][1])
        names, course = zip(*self.course, now, strict=True)
        self._write(course, names, "an unlabeled image over the training", f"{self.name}_over_training.png")
        self._remember(now)

    def _remember(self, row: tuple[str, _Row]) -> None:
        """Keep every picture, then every second, every fourth and so on, lest the rows become too many."""
        if self.calls % self.stride == 0:
            self.course.append(row)
        if len(self.course) == _MOST_ROWS:
            self.course, self.stride = self.course[::2], 2 * self.stride
        self.calls += 1

    def _write(self, rows: Sequence[_Row], names: Sequence[str], title: str, file: str) -> None:
        figure = quadripartition_figure(
            [row.image for row in rows],
            [row.truth for row in rows if row.truth is not None] or None,
            [row.reference for row in rows],
            [row.prediction for row in rows],
            [row.regions for row in rows if row.regions is not None] or None,
            names,
            title,
            labels=self.labels,
        )
        write_figure(figure, self.directory / file)


def _rows(judged: JudgedPair, truth: Tensor | None, i: int, slices: int) -> list[tuple[str, _Row]]:
    """Return the rows of an image with their names. Without a truth its slices are the same in every epoch."""
    inside = judged.inside
    regions = None if judged.regions is None else torch.where(inside, judged.regions, NO_REGION)
    maps = [judged.image, truth, judged.reference * inside, judged.prediction * inside, regions]
    structures = torch.zeros_like(judged.inside[i, 0]) if truth is None else truth[i, 0] > 0
    cut = planes([None if it is None else it[i, 0] for it in maps], structures, slices)
    return [(name, _Row(*shown)) for name, shown in cut]  # type: ignore[arg-type]
