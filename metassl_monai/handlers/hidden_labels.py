# SPDX-License-Identifier: Apache-2.0
"""How right the references are, by region, on unlabeled images whose annotations were hidden from the training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import set_rnd
from monai.utils import convert_to_tensor
from torch import Tensor

from metassl_monai.ignore import IGNORE

from .interval import is_due
from .judged_pairs import JudgedPair, class_counts, dice_metrics, judge, region_counts, region_metrics
from .undisturbed import undisturbed

__all__ = ["HiddenLabels"]


class HiddenLabels:
    """Compare the references of the unlabeled pairs with hidden annotations.

    It puts into ``engine.state.metrics``:

    * ``hidden/<pair>/accuracy/<UC|US|DC|DS>``: fraction of the region's voxels where the reference's label is right
      (MetaSSL, Fig. 10); no value where the region is empty.
    * ``hidden/<pair>/pixels/<UC|US|DC|DS>``: voxels of the region, summed over the monitored images.
    * ``hidden/<pair>/accuracy_foreground/...``, ``.../pixels_foreground/...``: the same, among the voxels that the
      reference does not call background.
    * ``hidden/<pair>/dice/<structure>``: Dice of the reference's labels, pooled over all voxels of the images.

    The method makes its pairs as in training, but without gradient, and from the same random numbers each time, so that
    epochs can be compared; thresholds are read and not moved. Nothing of the training is changed by it.

    It works in the last iteration of an epoch, so that whatever handles the end of the epoch finds the metrics,
    wherever it stands in the list of handlers. Give it on the first rank only.

    Args:
        data_loader: yields ``image`` and ``label``, and what else the method reads of unlabeled images, in the size
            of the training; from the datalist's list ``monitor``. Its random transforms must be its own.
        labels: name of each class value, background ``"0"`` included.
        interval: epochs between two comparisons; the last epoch is always compared.
        pictures: called as ``pictures(engine, judged, truth)`` with the first :class:`JudgedPair` of the first batch
            and its hidden annotation, such as :class:`RegionPictures`.
    """

    def __init__(
        self,
        data_loader: Any,
        labels: Mapping[str, str],
        interval: int = 1,
        pictures: Callable[[Any, JudgedPair, Tensor], None] | None = None,
    ) -> None:
        self.data_loader = data_loader
        self.labels = labels
        self.interval = interval
        self.pictures = pictures

    def attach(self, engine: Engine) -> None:
        """Register on the start and each iteration of an epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def reset(self, engine: Engine) -> None:
        """Forget the metrics of the last comparison, which would be logged again."""
        for name in [name for name in engine.state.metrics if name.startswith("hidden/")]:
            del engine.state.metrics[name]

    def __call__(self, engine: Any) -> None:
        """Compare, in the last iteration of an epoch whose turn it is."""
        state = engine.state
        if is_due(engine, self.interval) and state.iteration % state.epoch_length == 0:
            self.compare(engine)

    def compare(self, engine: Any) -> None:
        """Run the method on all monitored images and write the metrics."""
        regions: dict[str, Any] = defaultdict(int)
        classes: dict[str, Any] = defaultdict(int)
        first = None
        with (
            undisturbed(engine.unwrapped_method, engine.state.device),
            torch.autocast(engine.state.device.type, enabled=engine.amp, **engine.amp_kwargs),
        ):
            set_rnd(self.data_loader.dataset, 0)
            for batch in self.data_loader:
                for name, judged, truth in _judged(engine, batch):
                    first = first or (judged, truth)
                    classes[name] += class_counts(judged, truth, len(self.labels))
                    if judged.regions is not None:
                        regions[name] += region_counts(judged, truth)
        for name, counts in classes.items():
            engine.state.metrics.update(dice_metrics(f"hidden/{name}", counts, self.labels))
        for name, counts in regions.items():
            engine.state.metrics.update(region_metrics(f"hidden/{name}", counts))
        if self.pictures is not None and first is not None:
            self.pictures(engine, *first)


def _judged(engine: Any, batch: Mapping[str, Any]) -> Iterator[tuple[str, JudgedPair, Tensor]]:
    """Yield each pair with its hidden annotation; it counts only where somebody annotated."""
    hidden = convert_to_tensor(batch["label"], track_meta=False, device=engine.state.device)
    unlabeled = {key: value for key, value in batch.items() if key != "label"}
    for name, judged, part in judge(engine, engine.state.batch, unlabeled):
        truth = hidden[part]
        yield name, judged._replace(inside=judged.inside & (truth != IGNORE)), truth
