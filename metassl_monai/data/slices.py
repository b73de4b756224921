# SPDX-License-Identifier: Apache-2.0
"""Volumes as slices: what a 2D method trains on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from monai.transforms import Compose
from torch.utils.data import Dataset

from metassl_monai.ignore import IGNORE

__all__ = ["SliceDataset"]


class SliceDataset(Dataset[Any]):
    """Every slice of every volume, from volumes that are loaded and transformed once and kept in memory.

    Slices of which nobody annotated a voxel are left out: they are ``unannotated``, for the data set of the unlabeled
    slices to take.

    Memory: the transformed volumes, for example 0.35 GB for the 1,312 training slices of ACDC at 256 x 256 in float32.

    Args:
        data: items with paths, such as ``load_datalist`` returns.
        transform: deterministic transforms of a whole volume, channel first; must leave plain tensors or MetaTensors.
        slice_transform: random transforms of one slice; its items hold the keys of the volume, each ``(C, H, W)``.
        num_workers: threads that load volumes.
        progress: show a progress bar while loading.
        unannotated_of: the labeled slices, whose ``unannotated`` ones come last in this data set, without labels.

    Attributes:
        unannotated: volume and slice number of what was left out.

    Example::

        >>> import torch
        >>> from metassl_monai.data import SliceDataset
        >>> dataset = SliceDataset([{"image": torch.zeros(1, 8, 8, 5)}], transform=lambda item: item, progress=False)
        >>> len(dataset), dataset[4]["image"].shape
        (5, torch.Size([1, 8, 8]))
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        transform: Callable[..., Any],
        slice_transform: Callable[..., Any] | None = None,
        num_workers: int = 2,
        progress: bool = True,
        unannotated_of: SliceDataset | None = None,
    ) -> None:
        self.data = data
        self.transform = transform
        self.slice_transform = slice_transform
        # flat, since MONAI would load nothing before a Compose within a Compose, which might be random
        whole = Compose(transform).flatten()
        cache = CacheDataset(data, whole, num_workers=num_workers, progress=progress, copy_cache=False)
        self.volumes = [cache[i] for i in range(len(cache))]
        slices = [(number, z) for number, volume in enumerate(self.volumes) for z in range(_depth(volume))]
        self.unannotated = [(number, z) for number, z in slices if _is_unannotated(self.volumes[number], z)]
        left_out = set(self.unannotated)
        self.index = [entry for entry in slices if entry not in left_out]
        if unannotated_of is not None:
            self._take(unannotated_of)

    def _take(self, labeled: SliceDataset) -> None:
        first = len(self.volumes)
        self.volumes += [{key: volume[key] for key in volume if key != "label"} for volume in labeled.volumes]
        self.index += [(first + number, z) for number, z in labeled.unannotated]

    def __len__(self) -> int:
        """Return the number of slices of all volumes."""
        return len(self.index)

    def __getitem__(self, i: int) -> Any:
        """Return slice ``i``, transformed."""
        # cloned, since a slice is a view and transforms may work in place
        item = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in self.view(i).items()}
        return item if self.slice_transform is None else self.slice_transform(item)

    def view(self, i: int) -> dict[Hashable, Any]:
        """Return slice ``i`` before it is transformed; its tensors share the memory of their volume."""
        number, z = self.index[i]
        return {
            key: value[..., z] if isinstance(value, torch.Tensor) else value
            for key, value in self.volumes[number].items()
        }


def _is_unannotated(volume: Mapping[Hashable, Any], z: int) -> bool:
    if "label" not in volume:
        return False
    label = volume["label"][..., z]
    # one voxel tells of most slices that somebody annotated them
    return bool(label.flatten()[0] == IGNORE and (label == IGNORE).all())


def _depth(volume: Mapping[Hashable, Any]) -> int:
    return next(value.shape[-1] for value in volume.values() if isinstance(value, torch.Tensor))
