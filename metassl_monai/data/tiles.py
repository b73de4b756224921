# SPDX-License-Identifier: Apache-2.0
"""Large 2D images as tiles: what a 2D method trains on where no image fits into a network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from monai.data import CacheDataset
from monai.transforms import Lambda
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

__all__ = ["TileDataset"]

WHITE = 255


class TileDataset(Dataset[Any]):
    """The tiles of every image that show tissue, cut once and kept in memory as bytes.

    Tiles lie side by side; the last one of a row or column is moved inward to end at the edge of the image, so that it
    overlaps its neighbor. An image smaller than a tile is padded, white and labeled background. A tile whose pixels are
    nearly all white, which is the glass around a section, is left out.

    Memory: 3 bytes a pixel of the kept tiles and 1 for their labels, so 0.26 MB for a labeled tile of 256 x 256 and
    2.5 GB for 10,000. While images are read, each worker also holds a whole one.

    Args:
        data: items with paths, such as ``load_datalist`` returns.
        transform: deterministic transforms of a whole image; must leave ``image`` as uint8 ``(3, H, W)`` and ``label``,
            where there is one, as uint8 or int8 ``(1, H, W)``.
        tile_transform: random transforms of one tile; its items hold ``image``, float in [0, 1], and ``label``, float.
        tile_size: height and width of a tile.
        min_tissue: smallest fraction of a tile's pixels that must be tissue; 0 keeps every tile.
        white: a pixel is tissue if one of its channels is below this value.
        num_workers: threads that read images.
        progress: show a progress bar while reading.

    Raises:
        ValueError: if no tile shows enough tissue.
        RuntimeError: if ``transform`` fails, or the image that it leaves is not uint8; the cause is chained.

    Example::

        >>> import torch
        >>> from metassl_monai.data import TileDataset
        >>> image = torch.full((3, 6, 8), 255, dtype=torch.uint8)
        >>> image[:, :4, :4] = 100
        >>> dataset = TileDataset([{"image": image}], lambda item: item, tile_size=(4, 4), progress=False)
        >>> len(dataset), dataset[0]["image"].shape, round(dataset[0]["image"].mean().item(), 2)
        (2, torch.Size([3, 4, 4]), 0.39)
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        transform: Callable[..., Any],
        tile_transform: Callable[..., Any] | None = None,
        tile_size: Sequence[int] = (256, 256),
        min_tissue: float = 0.1,
        white: int = 220,
        num_workers: int = 2,
        progress: bool = True,
    ) -> None:
        self.tile_transform = tile_transform

        def tiles(item: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
            return [tile for tile in _cut(transform(item), tile_size) if _tissue(tile["image"], white) >= min_tissue]

        # copies are made in __getitem__
        # a Lambda, since MONAI would load nothing before a function, which might be random
        cache = CacheDataset(data, Lambda(tiles), num_workers=num_workers, progress=progress, copy_cache=False)
        self.tiles = [tile for i in range(len(cache)) for tile in cache[i]]
        if data and not self.tiles:
            raise ValueError(
                f"no tile of {len(data)} images has {min_tissue:.0%} tissue, pixels with a channel below {white}: "
                "lower min_tissue or raise white"
            )

    def __len__(self) -> int:
        """Return the number of tiles of all images."""
        return len(self.tiles)

    def __getitem__(self, i: int) -> Any:
        """Return tile ``i``, transformed."""
        item = dict(self.tiles[i])
        item["image"] = item["image"].float() / WHITE
        if "label" in item:
            item["label"] = item["label"].float()
        return item if self.tile_transform is None else self.tile_transform(item)


def _cut(item: Mapping[Hashable, Any], size: Sequence[int]) -> Iterator[dict[Hashable, Any]]:
    if item["image"].dtype != torch.uint8:
        raise ValueError(f"the image is {item['image'].dtype}: let transform leave uint8, 0 to 255")
    planes = {"image": _padded(item["image"], size, WHITE)}
    if "label" in item:
        planes["label"] = _padded(item["label"], size, 0)
    height, width = planes["image"].shape[1:]
    for top, left in product(_starts(height, size[0]), _starts(width, size[1])):
        rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
        # cloned, since a view would keep the whole image in memory
        yield {**item, **{key: plane[:, rows, columns].clone() for key, plane in planes.items()}}


def _padded(plane: Tensor, size: Sequence[int], value: int) -> Tensor:
    below, right = (max(0, tile - side) for tile, side in zip(size, plane.shape[1:], strict=True))
    return pad(plane, (0, right, 0, below), value=value)


def _starts(side: int, tile: int) -> list[int]:
    return [min(start, side - tile) for start in range(0, side, tile)]


def _tissue(image: Tensor, white: int) -> float:
    """Return the fraction of pixels that are not white."""
    return (image.amin(dim=0) < white).float().mean().item()
