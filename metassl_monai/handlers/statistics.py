# SPDX-License-Identifier: Apache-2.0
"""What a MetaSSL training looks like from inside: loss terms, regions, thresholds."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from metassl_monai.losses import Region, RegionAccuracyWeights

__all__ = ["TrainingStatistics"]


class TrainingStatistics:
    """Put the epoch's means into ``engine.state.metrics``, where every MONAI logger finds them.

    * ``loss`` and ``loss/<stream>/<pair>``: means over the epoch, as the terms enter the total.
    * ``learning_rate``: that of the first parameters at the end of the epoch.
    * ``regions/<stream>/<pair>/<UC|US|DC|DS>``: fraction of the voxels in each region, where the loss has regions.
    * ``pixels/<stream>/<pair>/<UC|US|DC|DS>``: mean number of voxels a step (MetaSSL, Fig. 9): of UC and US those that
      the reference does not call background, which would drown the others, of DC and DS all.
    * ``threshold/<stream>/<pair>/<class>``: thresholds at the end of the epoch.
    * ``accuracy/<stream>/<pair>/<UC|US|DC|DS>/<class>``: likewise the weights of a :class:`RegionAccuracyWeights`.

    Sums stay on the device until the epoch ends, so that no step waits for them. Give it before the loggers.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Register on the start, each iteration and the end of an epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.accumulate)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def reset(self) -> None:
        """Forget the last epoch."""
        self.sums = {}

    def accumulate(self, engine: Any) -> None:
        """Add up one iteration."""
        values = {f"loss/{name}": value for name, value in engine.state.losses.items()}
        for name, loss in engine.unwrapped_method.named_losses():
            if getattr(loss, "region_counts", None) is not None:
                values[f"regions/{name}"], values[f"foreground/{name}"] = loss.region_counts, loss.foreground_counts
        known = [name for name in values if name in self.sums]
        if known:
            torch._foreach_add_([self.sums[name] for name in known], [values[name] for name in known])
        # copies: what a CUDA graph leaves is overwritten by the next step
        self.sums.update({name: value.clone() for name, value in values.items() if name not in self.sums})

    def report(self, engine: Any) -> None:
        """Write the metrics of the epoch."""
        metrics = engine.state.metrics
        losses = {key: value for key, value in self.sums.items() if key.startswith("loss/")}
        metrics.update({key: value.item() / engine.state.epoch_length for key, value in losses.items()})
        metrics["loss"] = sum(metrics[key] for key in losses)
        metrics["learning_rate"] = float(engine.optimizer.param_groups[0]["lr"])
        for name, loss in engine.unwrapped_method.named_losses():
            if f"regions/{name}" in self.sums:
                metrics.update(self._region_metrics(name, engine.state.epoch_length))
            # a user's own threshold may have no values
            values = getattr(getattr(getattr(loss, "partition", None), "threshold", None), "values", None)
            if isinstance(values, Tensor):
                metrics.update({f"threshold/{name}/{c}": value for c, value in enumerate(values.tolist())})
            if isinstance(weights := getattr(loss, "region_weights", None), RegionAccuracyWeights):
                rows = zip(Region, weights().tolist(), strict=True)
                metrics.update(
                    {f"accuracy/{name}/{r.name}/{c}": value for r, row in rows for c, value in enumerate(row)}
                )

    def _region_metrics(self, name: str, steps: int) -> dict[str, float]:
        counts = self.sums[f"regions/{name}"]
        fractions = (counts / counts.sum().clamp_min(1)).tolist()
        every, foreground = (counts / steps).tolist(), (self.sums[f"foreground/{name}"] / steps).tolist()
        metrics = {f"regions/{name}/{region.name}": fractions[region] for region in Region}
        for region in Region:
            shown = foreground if region in (Region.UC, Region.US) else every
            metrics[f"pixels/{name}/{region.name}"] = shown[region]
        return metrics
