# SPDX-License-Identifier: Apache-2.0
"""Pictures of what the network sees, is told, and says, and of the regions its loss makes of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from metassl_monai.report import overlay_figure

__all__ = ["TrainingPictures"]


class TrainingPictures:
    """Draw labeled samples of the last batch of an epoch: image, truth, prediction, region map.

    Volumes are drawn at the middle of their last axis.

    Args:
        directory: where ``epoch_<n>.png`` is written.
        interval: epochs between two pictures; the last epoch is always drawn.
        samples: number of samples in a picture.
    """

    def __init__(self, directory: str | Path, interval: int = 1, samples: int = 3) -> None:
        self.directory = Path(directory)
        self.interval = interval
        self.samples = samples

    def attach(self, engine: Engine) -> None:
        """Register on ``EPOCH_COMPLETED``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Draw and write the picture of this epoch."""
        epoch = engine.state.epoch
        if epoch % self.interval != 0 and epoch != engine.state.max_epochs:
            return
        output = engine.state.output[: self.samples]
        regions = _labeled_regions(engine.unwrapped_method)
        figure = overlay_figure(
            [_plane(item["image"][0]) for item in output],
            [_plane(item["label"][0]) for item in output],
            [_plane(item["pred"].argmax(dim=0)) for item in output],
            None if regions is None else [_plane(regions[i, 0]) for i in range(len(output))],
            title=f"labeled training samples, epoch {epoch}",
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.directory / f"epoch_{epoch:04d}.png", dpi=120)


def _labeled_regions(method: Any) -> Tensor | None:
    return next((getattr(loss, "regions", None) for loss in method.labeled_losses.values()), None)


def _plane(values: Tensor) -> np.ndarray:
    if values.ndim == 3:
        values = values[..., values.shape[-1] // 2]
    return values.detach().to("cpu", torch.float32).numpy()
