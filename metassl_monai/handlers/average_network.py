# SPDX-License-Identifier: Apache-2.0
"""The exponential moving average of the network that is trained, as a further network to segment with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from .kept_network import save_network
from .ranks import is_first_rank

__all__ = ["AverageNetwork"]


class AverageNetwork:
    """Keep the exponential moving average (EMA) of a network, and save it when the training is complete.

    The average is over about ``1 / (1 - decay)`` iterations; early in the training it is the mean of all iterations so
    far. It changes nothing in the training. Weights and batch statistics are averaged alike: where the learning rate
    does not decay, averaged weights with the statistics of the last iteration segment far worse than either. (Ignite's
    ``EMAHandler`` keeps the step of its warm-up nowhere, so that a resumed run would begin it anew.)

    Give it before :class:`TrainingCheckpoint`, and ``average`` among the ``objects`` of that, so that a resumed run
    goes on with it.

    Args:
        path: the file, a flat state dict like that of :class:`LastNetwork`.
        network: the network, usually ``method.inference_network``.
        average: a copy of the network, which holds the average.
        decay: what is kept of the average in each iteration, from 0 to 1.
        record: what the network is made with, see :class:`LastNetwork`.

    Raises:
        NotFiniteError: instead of saving weights that are not finite.
    """

    def __init__(
        self,
        path: str | Path,
        network: nn.Module,
        average: nn.Module,
        decay: float = 0.99,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.network = network
        self.average = average
        self.decay = decay
        self.record = record

    def attach(self, engine: Engine) -> None:
        """Register on ``STARTED``, ``ITERATION_COMPLETED`` and ``COMPLETED`` of a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def start(self) -> None:
        """Begin with the weights that the training begins with, such as those of a first stage."""
        self.average.load_state_dict(self.network.state_dict())
        old, new = self.average.state_dict(), self.network.state_dict()
        real = [name for name, value in new.items() if value.is_floating_point()]
        self.averaged = [old[name] for name in real], [new[name] for name in real]
        # such as the number of batches seen
        self.copied = [old[name] for name in new if name not in real], [new[name] for name in new if name not in real]

    def update(self, engine: Engine) -> None:
        """Take in the network after an iteration."""
        torch._foreach_lerp_(*self.averaged, max(1 / engine.state.iteration, 1 - self.decay))
        if self.copied[0]:
            torch._foreach_copy_(*self.copied)

    def save(self) -> None:
        """Write the average."""
        if is_first_rank():
            save_network(self.average, self.path, self.record)
