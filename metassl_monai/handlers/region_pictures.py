# SPDX-License-Identifier: Apache-2.0
"""Pictures of the regions of unlabeled images whose annotations are hidden from the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metassl_monai.report import NO_REGION, quadripartition_figure

from .drawing import middle_plane, write_figure
from .judged_pairs import JudgedPair
from .nonfatal import nonfatal

__all__ = ["RegionPictures"]

_MOST_ROWS = 8


class _Row(NamedTuple):
    """What a row of a figure shows."""

    image: np.ndarray
    truth: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    regions: np.ndarray | None


class RegionPictures:
    """Draw unlabeled images, hidden truth, reference, prediction and region map; for :class:`HiddenLabels`.

    ``unlabeled_<epoch>.png`` shows the images of the first batch with the most annotated foreground (MetaSSL, Fig. 8),
    ``regions_over_training.png`` the first of them over the epochs (Fig. 11), at most eight and the last one; after a
    resume, those since. Volumes are drawn at the middle of their last axis. Where the pair does not count, there is
    no region. A picture that cannot be written is a warning.

    Args:
        directory: where the pictures are written.
        interval: epochs between two pictures; the last epoch is always drawn.
        samples: number of samples in a picture.
        labels: name of each class value, for a legend.
    """

    def __init__(
        self,
        directory: str | Path,
        interval: int = 1,
        samples: int = 3,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.interval = interval
        self.samples = samples
        self.labels = labels
        self.course: list[tuple[str, _Row]] = []
        self.calls = 0
        self.stride = 1

    def __call__(self, engine: Any, judged: JudgedPair) -> None:
        """Draw and write the pictures of this epoch."""
        epoch = engine.state.epoch
        if epoch % self.interval == 0 or epoch == engine.state.max_epochs:
            with nonfatal(f"no picture of the regions of epoch {epoch}"):
                self._draw(epoch, judged)

    def _draw(self, epoch: int, judged: JudgedPair) -> None:
        foreground = (judged.truth > 0).flatten(1).sum(dim=1)
        chosen = foreground.topk(min(self.samples, len(foreground))).indices.tolist()
        rows = [_row(judged, i) for i in chosen]
        self._write(rows, (), f"unlabeled images, epoch {epoch}", f"unlabeled_{epoch:04d}.png")
        now = (f"epoch {epoch}", rows[0])
        names, course = zip(*self.course, now, strict=True)
        self._write(course, names, "an unlabeled image over the training", "regions_over_training.png")
        self._remember(now)

    def _remember(self, row: tuple[str, _Row]) -> None:
        """Keep every picture, then every second, every fourth and so on, lest the rows become too many."""
        if self.calls % self.stride == 0:
            self.course.append(row)
        if len(self.course) == _MOST_ROWS:
            self.course, self.stride = self.course[::2], 2 * self.stride
        self.calls += 1

    def _write(self, rows: Sequence[_Row], names: Sequence[str], title: str, file: str) -> None:
        maps = [row.regions for row in rows if row.regions is not None]
        figure = quadripartition_figure(
            [row.image for row in rows],
            [row.truth for row in rows],
            [row.reference for row in rows],
            [row.prediction for row in rows],
            maps or None,
            names,
            title,
            labels=self.labels,
        )
        write_figure(figure, self.directory / file)


def _row(judged: JudgedPair, i: int) -> _Row:
    return _Row(
        image=middle_plane(judged.image[i, 0]),
        truth=middle_plane(judged.truth[i, 0]),
        reference=middle_plane(judged.reference[i, 0]),
        prediction=middle_plane(judged.prediction[i, 0]),
        regions=None if judged.regions is None else middle_plane(_known(judged.regions, judged.inside)[i, 0]),
    )


def _known(regions: Tensor, inside: Tensor) -> Tensor:
    return torch.where(inside, regions, NO_REGION)
