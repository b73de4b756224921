# SPDX-License-Identifier: Apache-2.0
"""The network that a training keeps: the best or the last one."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from metassl_monai.files import atomic_write
from metassl_monai.finite import refuse_not_finite
from metassl_monai.network_record import write_record

from .ranks import is_first_rank

__all__ = ["BestNetwork", "LastNetwork", "save_network"]


class BestNetwork:
    """Keep the network with the best key metric as a flat state dict, which ``inference.json`` loads.

    Args:
        path: the file, usually ``models/model.pt``.
        network: the network to save, usually ``method.inference_network``.
        record: what the network is made with; written to a JSON file beside it, with the SHA-256 of the network's file.

    Raises:
        NotFiniteError: instead of saving weights that are not finite.
    """

    def __init__(self, path: str | Path, network: nn.Module, record: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.network = network
        self.record = record

    def attach(self, engine: Engine) -> None:
        """Register on the ``EPOCH_COMPLETED`` of a validation engine."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Any) -> None:
        """Write the network if this validation was the best so far."""
        if is_first_rank() and engine.state.best_metric_epoch == engine.state.epoch:
            save_network(self.network, self.path, self.record)


class LastNetwork:
    """Keep the network as the training left it, as a flat state dict: for protocols without validation, and stages.

    Args:
        path: the file; it appears when the training is complete.
        network: the network to save, usually ``method.inference_network``.
        record: what the network is made with; written to a JSON file beside it, with the SHA-256 of the network's file.

    Raises:
        NotFiniteError: instead of saving weights that are not finite.
    """

    def __init__(self, path: str | Path, network: nn.Module, record: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.network = network
        self.record = record

    def attach(self, engine: Engine) -> None:
        """Register on the ``COMPLETED`` of a trainer."""
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self) -> None:
        """Write the network."""
        if is_first_rank():
            save_network(self.network, self.path, self.record)


def save_network(network: nn.Module, path: Path, record: Mapping[str, Any] | None = None) -> None:
    """Write a network as a flat state dict, with its record beside it; refuse weights that are not finite."""
    state = network.state_dict()
    refuse_not_finite(state, str(path))
    content = io.BytesIO()
    torch.save(state, content)
    if record is not None:  # first, since a network without its record would pass for a user's own
        write_record(path, content.getbuffer(), record)
    with atomic_write(path, "wb") as file:
        file.write(content.getbuffer())
