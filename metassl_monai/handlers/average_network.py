# SPDX-License-Identifier: Apache-2.0
"""The exponential moving average of the network that is trained, as a further network to segment with."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor, nn

from metassl_monai.networks import ema_update

from .checkpoint import is_first_rank, save_network

__all__ = ["AverageNetwork"]


class AverageNetwork:
    """Keep the exponential moving average (EMA) of a network's weights, and save it when the training is complete.

    The average is over about ``1 / (1 - decay)`` iterations; early in the training it is the mean of all iterations so
    far. It changes nothing in the training. Batch statistics are those of the network. Give it before
    :class:`TrainingCheckpoint`, and to that among its ``objects``, so that a resumed run goes on with the average. (The
    ``EMAHandler`` of Ignite keeps the step of its warm-up nowhere, so that a resumed run would begin it anew.)

    Args:
        path: the file, a flat state dict like that of :class:`LastNetwork`.
        network: the network, usually ``method.inference_network``.
        decay: what is kept of the average in each iteration, from 0 to 1.

    Raises:
        NotFiniteError: instead of saving weights that are not finite.
    """

    def __init__(self, path: str | Path, network: nn.Module, decay: float = 0.99) -> None:
        self.path = Path(path)
        self.network = network
        self.average = deepcopy(network)
        self.decay = decay

    def attach(self, engine: Engine) -> None:
        """Register on ``STARTED``, ``ITERATION_COMPLETED`` and ``COMPLETED`` of a trainer."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def start(self) -> None:
        """Begin with the weights that the training begins with, such as those of a first stage."""
        self.average.load_state_dict(self.network.state_dict())

    def update(self, engine: Engine) -> None:
        """Take in the weights after an iteration."""
        step = engine.state.iteration - 1
        ema_update(self.average, self.network, min(1 - 1 / (step + 1), self.decay))

    def save(self) -> None:
        """Write the average."""
        if is_first_rank():
            save_network(self.average, self.path)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with averaged weights."""
        self.average.load_state_dict(state)
