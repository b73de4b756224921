# SPDX-License-Identifier: Apache-2.0
"""Slices, tiles or patches that lie on the device and are drawn, cut and transformed there, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import CacheDataset
from monai.transforms import Compose, RandomizableTrait
from monai.utils import convert_to_tensor
from torch import Tensor
from torch.utils.data import Dataset

from metassl_monai.transforms import BatchTransform

from .slices import SliceDataset
from .tiles import WHITE, TileDataset

__all__ = ["DeviceDataset"]


class DeviceDataset(Dataset[Any]):
    """What another data set holds in memory, once on the device, and its random transforms for whole batches there.

    A ``DataLoader`` asks it for a batch at a time and needs ``num_workers=0`` and a ``collate_fn`` that returns what it
    gets. Every batch is made by a few kernels and no transfer but that of random numbers.

    Memory on the device: 2 bytes a voxel and channel of the images, 1 of tiles, and 2 a voxel of the labels; 0.17 GB
    for the 1,312 training slices of ACDC at 256 x 256, few of them labeled.

    Args:
        dataset: a :class:`SliceDataset`, a :class:`TileDataset` or a ``monai.data.CacheDataset``, which loads the cases
            and says how they are transformed at random, see :class:`~metassl_monai.transforms.BatchTransform`.
        device: where the voxels lie and batches are made.
        dtype: type that images are kept in; batches are float32. Tiles stay in 8 bits.

    Raises:
        ValueError: if a random transform is not known for batches, if samples of several shapes are not cropped, if
            one is smaller than the patch, or if ``dtype`` cannot hold an intensity.
        torch.OutOfMemoryError: if the samples do not fit.

    Example::

        >>> import torch
        >>> from metassl_monai.data import DeviceDataset, SliceDataset
        >>> slices = SliceDataset([{"image": torch.rand(1, 8, 8, 5)}], transform=lambda item: item, progress=False)
        >>> DeviceDataset(slices, "cpu").__getitems__([0, 4, 0])["image"].shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, dataset: Dataset[Any], device: torch.device | str, dtype: torch.dtype = torch.float16) -> None:
        items, random_transforms, self.divisor = _taken_apart(dataset)
        self.device = torch.device(device)
        self.transform = BatchTransform(random_transforms)
        self.patch = self.transform.roi_size
        self.keys = [key for key in ("image", "label") if items and key in items[0]]
        types = {"image": torch.uint8 if self.divisor else dtype, "label": torch.int16}
        self.samples: dict[str, list[Tensor] | Tensor] = {}
        for key in self.keys:
            voxels = [convert_to_tensor(item[key], track_meta=False) for item in items]
            self._refuse_shapes([tuple(each.shape[1:]) for each in voxels])
            self.samples[key] = self._moved(voxels, types[key])
        self.length = len(items)

    def _refuse_shapes(self, shapes: Sequence[tuple[int, ...]]) -> None:
        if self.patch is None and len(set(shapes)) > 1:
            raise ValueError(
                f"samples have shapes {sorted(set(shapes))[:3]} and no RandSpatialCropd cuts them to one: "
                "resize or crop them, or load the data without device_data.json."
            )
        small = [shape for shape in shapes if self.patch and any(a < b for a, b in zip(shape, self.patch, strict=True))]
        if small:
            raise ValueError(
                f"a sample of shape {small[0]} is smaller than the patch {tuple(self.patch or ())}: pad it."
            )

    def _moved(self, voxels: list[Tensor], dtype: torch.dtype) -> list[Tensor] | Tensor:
        """One tensor where all samples are used whole, else one each."""
        if dtype.is_floating_point and any(each.abs().max() > torch.finfo(dtype).max for each in voxels):
            raise ValueError(f"an image has intensities that {dtype} cannot hold: scale them, or set dtype to float32.")
        if self.patch is not None:
            return [each.to(dtype).to(self.device) for each in voxels]
        return torch.stack([each.to(dtype) for each in voxels]).to(self.device)

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.length

    def __getitems__(self, indices: Sequence[int]) -> dict[Any, Tensor]:
        """Return a batch of these samples, ``(B, C, *spatial)`` a key, transformed at random."""
        batch = self._cut(indices) if self.patch is not None else self._gathered(indices)
        if self.divisor:
            batch["image"] /= self.divisor
        return self.transform(batch)

    def _gathered(self, indices: Sequence[int]) -> dict[str, Tensor]:
        where = torch.tensor(indices).to(self.device, non_blocking=True)
        return {key: samples[where].float() for key, samples in self.samples.items()}

    def _cut(self, indices: Sequence[int]) -> dict[str, Tensor]:
        random = self.transform.R
        boxes = []
        for i in indices:
            shape = self.samples[self.keys[0]][i].shape[1:]
            starts = [random.randint(side - roi + 1) for side, roi in zip(shape, self.patch or (), strict=True)]
            boxes.append((i, tuple(slice(a, a + roi) for a, roi in zip(starts, self.patch or (), strict=True))))
        return {
            key: torch.stack([samples[i][(slice(None), *box)] for i, box in boxes]).float()
            for key, samples in self.samples.items()
        }


def _taken_apart(dataset: Any) -> tuple[Sequence[Mapping[Any, Any]], Callable[..., Any] | None, float | None]:
    """Samples before they are transformed at random, what does that, and by what 8-bit images are divided."""
    if isinstance(dataset, SliceDataset):
        return [dataset.view(i) for i in range(len(dataset))], dataset.slice_transform, None
    if isinstance(dataset, TileDataset):
        return dataset.tiles, dataset.tile_transform, WHITE
    if isinstance(dataset, CacheDataset):
        chain = dataset.transform.flatten().transforms
        first = next((i for i, each in enumerate(chain) if isinstance(each, RandomizableTrait)), len(chain))
        return dataset._cache, Compose(chain[first:]), None
    raise ValueError(f"{type(dataset).__name__} keeps no samples: use SliceDataset, TileDataset or CacheDataset.")
