# SPDX-License-Identifier: Apache-2.0
"""Pictures of what the network makes of validation cases, which no transform has changed and no step has seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.transforms import ResampleToMatch

from metassl_monai.metrics import label_map
from metassl_monai.report import methods_figure
from metassl_monai.report.contours import Plane, planes_of

from .drawing import write_figure
from .interval import is_due
from .nonfatal import nonfatal

__all__ = ["ValidationPictures"]


class ValidationPictures:
    """Draw the first validation cases as ``validation_<epoch>.png``: image, annotation, prediction, several slices.

    Cases are drawn in the geometry of their files, to which the image is brought back, with the patient's left to the
    right. A picture that cannot be written is a warning.

    Args:
        directory: where the pictures are written.
        evaluator: the validation engine, whose postprocessing leaves ``pred`` and ``label`` as
            :class:`CaseTable` has them.
        labels: name of each class value, for a legend.
        interval: epochs between two pictures; the last epoch is drawn where it is validated.
        cases: number of cases in a picture.
        slices: of each volume, evenly over what is annotated.
    """

    def __init__(
        self,
        directory: str | Path,
        evaluator: Any,
        labels: Mapping[str, str],
        interval: int = 1,
        cases: int = 2,
        slices: int = 3,
    ) -> None:
        self.directory = Path(directory)
        self.evaluator = evaluator
        self.labels = labels
        self.interval = interval
        self.cases = cases
        self.slices = slices
        self.rows: list[tuple[str, Plane]] = []
        self.seen = 0
        self.due = False

    def attach(self, engine: Engine) -> None:
        """Register on the trainer's epochs and on the iterations and the end of its validation."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.begin)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        self.evaluator.add_event_handler(Events.COMPLETED, self.draw)

    def begin(self, engine: Engine) -> None:
        """Forget the last picture."""
        self.due = is_due(engine, self.interval)
        self.rows, self.seen = [], 0

    def collect(self, engine: Any) -> None:
        """Keep the planes of the first cases."""
        with nonfatal(f"no picture of the validation of epoch {engine.state.epoch}"):
            for item, output in zip(engine.state.batch, engine.state.output, strict=True):
                if self.due and self.seen < self.cases:
                    self.seen += 1
                    self.rows += self._rows(item, output)

    def draw(self, engine: Engine) -> None:
        """Draw and write the picture."""
        epoch, rows, self.rows, self.due = engine.state.epoch, self.rows, [], False
        if rows:
            with nonfatal(f"no picture of the validation of epoch {epoch}"):
                names, planes = zip(*rows, strict=True)
                maps = {"annotation": [it.truth for it in planes], "prediction": [it.prediction for it in planes]}
                images = [it.image for it in planes]
                figure = methods_figure(images, maps, names, f"validation cases, epoch {epoch}", self.labels)
                write_figure(figure, self.directory / f"validation_{epoch:04d}.png")

    def _rows(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> list[tuple[str, Plane]]:
        label = output["label"]
        image = ResampleToMatch()(item["image"], label)[0].cpu().numpy()
        affine = np.asarray(label.affine.cpu()) if label.ndim == 4 else None
        planes = planes_of(image, label_map(output["pred"]), label_map(label), affine=affine, count=self.slices)
        case = str(item.get("case", self.seen))
        return [(f"{case}\n{plane.place}", plane) for plane in planes]
