# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a method makes of unlabeled images while it trains, whose annotations nobody knows."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events

from .interval import is_due
from .judged_pairs import judge, samples_of
from .nonfatal import nonfatal
from .region_pictures import RegionPictures
from .undisturbed import undisturbed

__all__ = ["UnlabeledPictures"]


class UnlabeledPictures:
    """Draw the unlabeled images of the first batch: image, reference, prediction, region map, the same ones each time.

    The method makes its unlabeled pairs of them as in training, from the same random numbers each time, and the first
    pair of each image is shown; nothing of the training is changed by it. A method without unlabeled pairs has no such
    pictures, and one that cannot be drawn is a warning. Give it on the first rank only.

    Args:
        pictures: what draws them, at its interval.
    """

    def __init__(self, pictures: RegionPictures) -> None:
        self.pictures = pictures
        self.streams: Any = None

    def attach(self, engine: Engine) -> None:
        """Register on the first batch and the end of each epoch."""
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def keep(self, engine: Engine) -> None:
        """Keep the streams of the first batch, before the trainer reduces it to the labeled one."""
        if self.streams is None:
            self.streams = engine.state.batch

    def __call__(self, engine: Any) -> None:
        """Draw the pictures of this epoch."""
        if not self.streams.get("unlabeled") or not is_due(engine, self.pictures.interval):
            return
        with (
            nonfatal(f"no picture of unlabeled images in epoch {engine.state.epoch}"),
            undisturbed(engine.unwrapped_method, engine.state.device),
            torch.autocast(engine.state.device.type, enabled=engine.amp, **engine.amp_kwargs),
        ):
            pairs, images = [], 0
            for _, pair, part in judge(engine, self.streams["labeled"], self.streams["unlabeled"]):
                if part.start >= images:  # else the same images once more, such as by the other network
                    pairs.append(pair)
                    images = part.stop
            if pairs:
                self.pictures(engine, samples_of(pairs, self.pictures.samples))
