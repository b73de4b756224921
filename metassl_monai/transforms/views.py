# SPDX-License-Identifier: Apache-2.0
"""Two views of an image that differ in intensity alone (Sohn et al., FixMatch, NeurIPS 2020)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import (
    Compose,
    MapTransform,
    RandCoarseDropout,
    RandGaussianNoise,
    RandGaussianSmooth,
    Randomizable,
    RandScaleIntensityFixedMean,
    RandStdShiftIntensity,
)
from monai.utils import MAX_SEED, convert_to_tensor
from torch import Tensor

__all__ = ["WeakStrongViews", "WeakStrongViewsD", "WeakStrongViewsDict", "WeakStrongViewsd"]


class RandCutout(RandCoarseDropout):
    """Up to three holes of noise, whose sides are the same random tenth to third of every side of the image."""

    fractions = (0.1, 1 / 3)

    def __init__(self, prob: float) -> None:
        super().__init__(holes=1, max_holes=3, spatial_size=1, prob=prob)

    def randomize(self, img_size: Sequence[int]) -> None:
        fraction = self.R.uniform(*self.fractions)
        self.spatial_size = [max(1, round(fraction * side)) for side in img_size]
        super().randomize(img_size)


def _photometric_jitter() -> Compose:
    # contrast about the mean and brightness in standard deviations: the same for [0, 1] and for z-scores
    return Compose(
        [
            RandScaleIntensityFixedMean(prob=1.0, factors=0.8),
            RandStdShiftIntensity(prob=1.0, factors=0.8),
            RandGaussianSmooth(prob=0.5),
            RandGaussianNoise(prob=0.5, std=0.1),
            RandCutout(prob=0.5),
        ]
    )


class WeakStrongViews(Randomizable):
    """A weak and a strong view of one image, voxel by voxel at the same place.

    Flips, rotations and crops come before this transform, so that both views share them. The default strong view
    follows the jitter of FixMatch (Sohn et al., NeurIPS 2020) on medical images: contrast changed by up to 80 % about
    the mean, brightness by up to 0.8 standard deviations, blur, noise of up to 0.1, and cutout. It suits images in
    [0, 1] and z-scored ones, in 2D and 3D, and gives float32.

    Args:
        strong: intensity transform of the weak view, such as a ``Compose`` of MONAI's; None is the default above.
        weak: intensity transform of the image, before ``strong``; None leaves the image as it is.

    Example::

        >>> import torch
        >>> from monai.transforms import ScaleIntensity
        >>> from metassl_monai.transforms import WeakStrongViews
        >>> views = WeakStrongViews(strong=ScaleIntensity(minv=None, maxv=None, factor=1.0))
        >>> weak, strong = views(torch.ones(1, 2, 2))
        >>> weak.sum().item(), strong.sum().item()
        (4.0, 8.0)
    """

    def __init__(self, strong: Callable[..., Any] | None = None, weak: Callable[..., Any] | None = None) -> None:
        self.strong = _photometric_jitter() if strong is None else strong
        self.weak = weak

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> WeakStrongViews:
        """Seed both transforms."""
        super().set_random_state(seed, state)
        for transform in (self.weak, self.strong):
            if isinstance(transform, Randomizable):
                transform.set_random_state(seed=int(self.R.randint(MAX_SEED, dtype="uint32")))
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw nothing: both transforms draw for themselves when they are called."""

    def __call__(self, image: Any) -> tuple[Tensor, Tensor]:
        """Make both views.

        Args:
            image: ``(C, *spatial)``; it is not changed.

        Returns:
            The weak and the strong view, ``(C, *spatial)`` each, with the metadata of ``image``. Without ``weak``, the
            weak view is the image itself.

        Raises:
            ValueError: when ``weak`` or ``strong`` changes the shape or the affine.
        """
        image = convert_to_tensor(image, track_meta=get_track_meta())
        weak = image if self.weak is None else _intensity("weak", self.weak, image)
        return weak, _intensity("strong", self.strong, weak)


class WeakStrongViewsd(Randomizable, MapTransform):
    """Dictionary form of :class:`WeakStrongViews`: adds a strong view beside each key, which holds the weak one.

    The strong view carries the affine and the applied operations of its key, and nothing is added to either, so
    ``Invertd`` undoes earlier spatial transforms of the key as before. Each key draws its own intensities.

    Args:
        keys: images; labels stay as they are.
        strong: see :class:`WeakStrongViews`.
        weak: see :class:`WeakStrongViews`.
        strong_postfix: the strong view of ``key`` is put under ``f"{key}_{strong_postfix}"``.
        allow_missing_keys: skip keys that an item lacks.

    Example::

        >>> import torch
        >>> from metassl_monai.transforms import WeakStrongViewsd
        >>> item = WeakStrongViewsd("image")({"image": torch.rand(1, 8, 8), "label": torch.zeros(1, 8, 8)})
        >>> sorted(item)
        ['image', 'image_strong', 'label']
    """

    def __init__(
        self,
        keys: KeysCollection,
        strong: Callable[..., Any] | None = None,
        weak: Callable[..., Any] | None = None,
        strong_postfix: str = "strong",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.views = WeakStrongViews(strong, weak)
        self.strong_postfix = strong_postfix

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> WeakStrongViewsd:
        """Seed both transforms."""
        super().set_random_state(seed, state)
        self.views.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Draw nothing: both transforms draw for themselves when they are called."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with both views of every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key], item[f"{key}_{self.strong_postfix}"] = self.views(item[key])
        return item


def _intensity(name: str, transform: Callable[..., Any], image: Tensor) -> Tensor:
    # a copy, since several of MONAI's intensity transforms work in place
    view = transform(image.clone())
    if view.shape != image.shape or _moved(view, image):
        raise ValueError(f"{name} changed the geometry of the image: do that before, where both views share it.")
    found: Tensor = view
    return found


def _moved(view: Tensor, image: Tensor) -> bool:
    if not (isinstance(view, MetaTensor) and isinstance(image, MetaTensor)):
        return False
    return not torch.equal(view.affine, image.affine)


WeakStrongViewsD = WeakStrongViewsDict = WeakStrongViewsd
