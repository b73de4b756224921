# SPDX-License-Identifier: Apache-2.0
"""Two data loaders as one: a labeled and an unlabeled batch a step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

__all__ = ["PairedDataLoader"]

# More passes than this over one stream within an epoch would repeat the shuffle of the next epoch.
_PASSES_PER_EPOCH = 10_000


class PairedDataLoader:
    """Yield ``{"labeled": batch, "unlabeled": batch}``, ``length`` times an epoch; the latter only where there is one.

    Each stream keeps its own loader, with its own transforms, batch size and sampler; one that runs out is shuffled
    anew and goes on. Every epoch starts both streams afresh.

    Args:
        labeled: loader of the labeled images.
        unlabeled: loader of the unlabeled images; None for a method that needs none.
        length: number of steps in an epoch.
        partial_labels: whether annotations may hold :data:`~metassl_monai.ignore.IGNORE`, which the trainer then tells
            the method; in a config ``$metassl_monai.data.names_ignore(@datalist)``.

    Raises:
        ValueError: when a loader yields no batch.

    Example::

        >>> from monai.data import DataLoader
        >>> from metassl_monai.engines import PairedDataLoader
        >>> labeled, unlabeled = DataLoader([0, 1], batch_size=2), DataLoader([2, 3, 4, 5], batch_size=2)
        >>> [(step["labeled"].tolist(), step["unlabeled"].tolist())
        ...  for step in PairedDataLoader(labeled, unlabeled, length=3)]
        [([0, 1], [2, 3]), ([0, 1], [4, 5]), ([0, 1], [2, 3])]
    """

    def __init__(
        self, labeled: DataLoader[Any], unlabeled: DataLoader[Any] | None, length: int, partial_labels: bool = False
    ) -> None:
        self.streams = {"labeled": labeled} if unlabeled is None else {"labeled": labeled, "unlabeled": unlabeled}
        for name, loader in self.streams.items():
            # a sampler may promise samples that an empty data set does not have
            if len(loader) == 0 or len(loader.dataset) == 0:  # type: ignore[arg-type]
                raise ValueError(
                    f"the {name} stream yields no batch: it has {len(loader.dataset)} samples, "  # type: ignore[arg-type]
                    f"fewer than its batch size {loader.batch_size}. Lower {name}_batch_size or add cases."
                )
        self.length = length
        self.partial_labels = partial_labels
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of distributed samplers, as ``DistributedSampler.set_epoch``."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return self.length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Start an epoch."""
        streams = {name: self._endless(loader) for name, loader in self.streams.items()}
        for _ in range(self.length):
            yield {name: next(stream) for name, stream in streams.items()}

    def _endless(self, loader: DataLoader[Any]) -> Iterator[Any]:
        for number in itertools.count():
            if isinstance(loader.sampler, DistributedSampler):
                loader.sampler.set_epoch(self.epoch * _PASSES_PER_EPOCH + number)
            yield from loader
