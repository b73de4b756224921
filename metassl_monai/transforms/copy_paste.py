# SPDX-License-Identifier: Apache-2.0
"""Bidirectional copy-paste between labeled and unlabeled samples (Bai et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor
from monai.utils.misc import get_seed
from torch import Tensor

from .boxes import box_masks, fitting_mask

__all__ = [
    "BidirectionalCopyPaste",
    "BidirectionalCopyPasteD",
    "BidirectionalCopyPasteDict",
    "BidirectionalCopyPasted",
]


class BidirectionalCopyPaste(Randomizable):
    """Mix labeled and unlabeled samples in both directions (Bai et al., Bidirectional Copy-Paste, CVPR 2023).

    One box, at a uniform place inside the image, serves a whole batch. The first half of the mixed samples, the middle
    one included, shows the labeled sample in the box and the unlabeled one around it (inward); the other half shows
    the unlabeled sample in the box (outward).

    Args:
        box_fraction: side of the box as a fraction of each side of the image, in (0, 1], rounded to voxels.

    Attributes:
        mask: True where a voxel comes from the labeled sample, ``(B_u, 1, *spatial)``, bool, of the last draw;
            None before the first.

    Raises:
        ValueError: when ``box_fraction`` is out of range.

    Example::

        >>> import torch
        >>> from metassl_monai.transforms import BidirectionalCopyPaste
        >>> paste = BidirectionalCopyPaste(box_fraction=0.5)
        >>> mixed = paste(torch.ones(2, 1, 4, 4), torch.zeros(3, 1, 4, 4))
        >>> mixed.sum(dim=(1, 2, 3))
        tensor([ 4.,  4., 12.])
        >>> target = paste(torch.ones(2, 1, 4, 4).long(), torch.zeros(3, 1, 4, 4).long(), randomize=False)
        >>> bool((target == mixed).all())
        True
    """

    def __init__(self, box_fraction: float = 2 / 3) -> None:
        if not 0 < box_fraction <= 1:
            raise ValueError(f"box_fraction={box_fraction} is not in (0, 1].")
        self.box_fraction = box_fraction
        self.mask: Tensor | None = None
        if get_seed() is not None:
            self.set_random_state(seed=get_seed())

    def randomize(  # type: ignore[override]
        self, spatial_shape: Sequence[int], number: int, device: torch.device | str | None = None
    ) -> None:
        """Draw a box and make the mask of ``number`` mixed samples from it, on ``device``."""
        sides = [round(self.box_fraction * size) for size in spatial_shape]
        starts = [int(self.R.randint(size - side + 1)) for size, side in zip(spatial_shape, sides, strict=True)]
        box = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        self.mask = box_masks([box] * number, spatial_shape, device)
        self.mask[(number + 1) // 2 :].logical_not_()

    def __call__(self, labeled: Tensor, unlabeled: Tensor, randomize: bool = True) -> Tensor:
        """Mix two batches: images, labels with pseudo-labels, logits, confidences.

        Args:
            labeled: ``(B_l, C, *spatial)``; mixed sample ``i`` uses number ``i % B_l``.
            unlabeled: ``(B_u, C, *spatial)``.
            randomize: draw anew; False repeats the last draw, for the other arrays of a batch.

        Returns:
            The mixed samples, ``(B_u, C, *spatial)``, of the dtype that both promote to. They have no metadata, since
            they belong to no single image.

        Raises:
            ValueError: when the shapes do not fit each other, or the last draw was for another shape.
        """
        labeled = convert_to_tensor(labeled, track_meta=False)
        unlabeled = convert_to_tensor(unlabeled, track_meta=False)
        number, _, *spatial = _common_shape(labeled, unlabeled)
        if randomize:
            self.randomize(spatial, number, unlabeled.device)
        mask = fitting_mask(self.mask, unlabeled)
        partner = torch.arange(number, device=labeled.device) % len(labeled)
        return torch.where(mask, labeled[partner], unlabeled)


class BidirectionalCopyPasted(Randomizable, MapTransform):
    """Dictionary form of :class:`BidirectionalCopyPaste`: one draw for all keys of two batches.

    Args:
        keys: what to mix. Both batches hold every key: the unlabeled one has its pseudo-label under ``"label"``.
        box_fraction: see :class:`BidirectionalCopyPaste`.
        mask_key: where the mask ``(B_u, 1, *spatial)`` is put.
        allow_missing_keys: skip keys that either batch lacks.

    Attributes:
        copy_paste: the array form, which holds ``mask``.

    Example::

        >>> import torch
        >>> from metassl_monai.transforms import BidirectionalCopyPasted
        >>> labeled = {"image": torch.ones(2, 1, 6, 6), "label": torch.ones(2, 1, 6, 6)}
        >>> unlabeled = {"image": torch.zeros(3, 1, 6, 6), "label": torch.zeros(3, 1, 6, 6)}
        >>> mixed = BidirectionalCopyPasted()({"labeled": labeled, "unlabeled": unlabeled})
        >>> [(key, tuple(value.shape)) for key, value in mixed.items()]
        [('image', (3, 1, 6, 6)), ('label', (3, 1, 6, 6)), ('mask', (3, 1, 6, 6))]
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        box_fraction: float = 2 / 3,
        mask_key: str = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.copy_paste = BidirectionalCopyPaste(box_fraction)
        self.mask_key = mask_key

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> BidirectionalCopyPasted:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.copy_paste.set_random_state(seed, state)
        return self

    def randomize(  # type: ignore[override]
        self, spatial_shape: Sequence[int], number: int, device: torch.device | str | None = None
    ) -> None:
        """Draw a box and make the mask of ``number`` mixed samples from it, on ``device``."""
        self.copy_paste.randomize(spatial_shape, number, device)

    def __call__(
        self, data: Mapping[Hashable, Mapping[Hashable, Tensor]], randomize: bool = True
    ) -> dict[Hashable, Tensor | None]:
        """Return every key mixed alike, and the mask, from ``{"labeled": {...}, "unlabeled": {...}}``."""
        labeled, unlabeled = data["labeled"], data["unlabeled"]
        shared = {key: value for key, value in labeled.items() if key in unlabeled}
        mixed: dict[Hashable, Tensor | None] = {}
        for key in self.key_iterator(shared):
            mixed[key] = self.copy_paste(labeled[key], unlabeled[key], randomize=randomize and not mixed)
        return {**mixed, self.mask_key: self.copy_paste.mask} if mixed else {}


def _common_shape(labeled: Tensor, unlabeled: Tensor) -> torch.Size:
    if unlabeled.ndim < 3 or len(labeled) == 0 or labeled.shape[1:] != unlabeled.shape[1:]:
        shapes = f"{tuple(labeled.shape)} and {tuple(unlabeled.shape)}"
        raise ValueError(
            f"labeled and unlabeled have shapes {shapes}: expected (batch, channels, *spatial), both alike."
        )
    return unlabeled.shape


BidirectionalCopyPasteD = BidirectionalCopyPasteDict = BidirectionalCopyPasted
