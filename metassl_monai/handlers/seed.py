# SPDX-License-Identifier: Apache-2.0
"""Random streams that depend on the epoch alone, so that a resumed run draws what the uninterrupted one drew."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from monai.data import set_rnd
from monai.utils import set_determinism

from .ranks import rank

__all__ = ["SeedEachEpoch"]

# Ranks must augment differently; epochs are far fewer than this.
_SEEDS_PER_RANK = 1_000_003


class SeedEachEpoch:
    """Reseed Python, NumPy, torch and the transforms of loader and method from ``seed``, epoch and rank.

    Give it before every handler that draws random numbers when an epoch starts. Loaders must not use
    ``persistent_workers``, whose transforms cannot be reached from here.

    Args:
        seed: seed of the run.
        data_loader: the :class:`~metassl_monai.engines.PairedDataLoader` of the run.

    Raises:
        ValueError: when a loader uses persistent workers.
    """

    def __init__(self, seed: int, data_loader: Any) -> None:
        if any(getattr(loader, "persistent_workers", False) for loader in data_loader.streams.values()):
            raise ValueError("persistent_workers cannot be reseeded, so runs could not be resumed: set it to False.")
        self.seed = seed
        self.data_loader = data_loader

    def attach(self, engine: Engine) -> None:
        """Register on ``EPOCH_STARTED``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Reseed everything for the epoch that starts."""
        seed = self.seed + engine.state.epoch + rank() * _SEEDS_PER_RANK
        set_determinism(seed=seed)
        self.data_loader.set_epoch(engine.state.epoch)
        for loader in self.data_loader.streams.values():
            set_rnd(loader.dataset, seed=seed)
        set_rnd(engine.unwrapped_method, seed=seed)  # a method that mixes images holds a random transform
