# SPDX-License-Identifier: Apache-2.0
"""CutMix of a batch (Yun et al., ICCV 2019), with a box of its own for each sample."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_dst_type, convert_to_tensor
from monai.utils.misc import get_seed
from torch import Tensor

from .boxes import box_masks, fitting_mask

__all__ = ["RandCutMix", "RandCutMixD", "RandCutMixDict", "RandCutMixd"]


class RandCutMix(Randomizable):
    """Replace a box of each sample by that of another sample of the batch (Yun et al., CutMix, ICCV 2019).

    A box has the fraction ``(1 - lambda) ** (1 / d)`` of each of the ``d`` sides, with lambda from Beta(alpha, alpha),
    and a uniform center; what lies outside the image is cut off. Lambda and center are drawn for each sample. Any batch
    size will do, so a partial last batch does too.

    Args:
        prob: probability of each sample to be mixed, in [0, 1].
        alpha: parameter of the Beta distribution, positive; 1 is uniform.

    Attributes:
        mask: True inside the box, ``(B, 1, *spatial)``, bool; None before the first draw.
            This and the two below are of the last draw.
        partner: index of the sample that fills the box, ``(B,)``, long: never the own one unless ``B`` is 1.
        area: fraction of the voxels that are inside the box, after cutting, ``(B,)``, float32.

    Raises:
        ValueError: when ``prob`` or ``alpha`` is out of range.

    Example::

        >>> import torch
        >>> from metassl_monai.transforms import RandCutMix
        >>> cutmix = RandCutMix().set_random_state(seed=0)
        >>> image = torch.arange(3.).view(3, 1, 1, 1).expand(3, 1, 8, 8)
        >>> mixed = cutmix(image)
        >>> confidence = cutmix(torch.rand(3, 1, 8, 8), randomize=False)  # mixed in the same way
        >>> bool((mixed == torch.where(cutmix.mask, image[cutmix.partner], image)).all())
        True
    """

    def __init__(self, prob: float = 1.0, alpha: float = 1.0) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob={prob} is not in [0, 1].")
        if alpha <= 0:
            raise ValueError(f"alpha={alpha} is not positive.")
        self.prob = prob
        self.alpha = alpha
        self.mask: Tensor | None = None
        self.partner = torch.zeros(0, dtype=torch.long)
        self.area = torch.zeros(0)
        if get_seed() is not None:
            self.set_random_state(seed=get_seed())

    def randomize(self, data: Tensor) -> None:
        """Draw boxes and partners for a batch of this shape and device, ``(B, C, *spatial)``."""
        number, _, *spatial = data.shape
        low, high = self._corners(number, np.array(spatial))
        boxes = [tuple(map(slice, *corners)) for corners in zip(low.tolist(), high.tolist(), strict=True)]
        self.mask = box_masks(boxes, spatial, data.device)
        self.area = _on(data.device, (high - low).prod(axis=1) / np.prod(spatial)).float()
        self.partner = _on(data.device, self._partners(number))

    def _corners(self, number: int, spatial: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mixed = self.R.rand(number) < self.prob
        fraction = (1 - self.R.beta(self.alpha, self.alpha, number)) ** (1 / len(spatial))
        side = np.rint((mixed * fraction)[:, None] * spatial).astype(int)
        low = self.R.randint(spatial, size=side.shape) - side // 2
        return low.clip(0), np.minimum(low + side, spatial)

    def _partners(self, number: int) -> np.ndarray:
        # each sample takes the next one of a random circle
        circle = self.R.permutation(number)
        partner = np.empty(number, dtype=np.int64)
        partner[circle] = np.roll(circle, -1)
        return partner

    def __call__(self, img: Any, randomize: bool = True) -> Any:
        """Mix a batch.

        Args:
            img: images, labels, pseudo-labels, confidences: ``(B, C, *spatial)``, of any dtype.
            randomize: draw anew; False repeats the last draw, for the other arrays of a batch.

        Returns:
            The mixed batch: shape, dtype and metadata of ``img``.

        Raises:
            ValueError: when ``img`` has no spatial axis, or a shape that the last draw was not for.
        """
        batch = convert_to_tensor(img, track_meta=False)
        if batch.ndim < 3:
            raise ValueError(f"img has shape {tuple(batch.shape)}, expected (batch, channels, *spatial).")
        if randomize:
            self.randomize(batch)
        mask = fitting_mask(self.mask, batch)
        other = batch[self.partner.to(batch.device)]
        return convert_to_dst_type(torch.where(mask, other, batch), img)[0]


class RandCutMixd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandCutMix`: one draw for all keys of a batch.

    Args:
        keys: images, labels, pseudo-labels, confidences, each ``(B, C, *spatial)``.
        prob: see :class:`RandCutMix`.
        alpha: see :class:`RandCutMix`.
        mask_key: where the mask ``(B, 1, *spatial)`` is put.
        allow_missing_keys: skip keys that a batch lacks.

    Attributes:
        cutmix: the array form, which holds ``mask``, ``partner`` and ``area``.

    Example::

        >>> import torch
        >>> from metassl_monai.transforms import RandCutMixd
        >>> batch = {"image": torch.rand(3, 1, 8, 8), "label": torch.ones(3, 1, 8, 8, dtype=torch.long)}
        >>> mixed = RandCutMixd(["image", "label"])(batch)
        >>> mixed["cutmix_mask"].shape, mixed["label"].dtype
        (torch.Size([3, 1, 8, 8]), torch.int64)
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        alpha: float = 1.0,
        mask_key: str = "cutmix_mask",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.cutmix = RandCutMix(prob, alpha)
        self.mask_key = mask_key

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandCutMixd:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.cutmix.set_random_state(seed, state)
        return self

    def randomize(self, data: Tensor) -> None:
        """Draw boxes and partners for a batch of this shape and device, ``(B, C, *spatial)``."""
        self.cutmix.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any], randomize: bool = True) -> dict[Hashable, Any]:
        """Return the batch with every key mixed alike, and the mask."""
        batch = dict(data)
        for number, key in enumerate(self.key_iterator(batch)):
            batch[key] = self.cutmix(batch[key], randomize=randomize and number == 0)
            batch[self.mask_key] = self.cutmix.mask
        return batch


def _on(device: torch.device, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


RandCutMixD = RandCutMixDict = RandCutMixd
