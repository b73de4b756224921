# SPDX-License-Identifier: Apache-2.0
"""Transforms that semi-supervised training needs and MONAI lacks: views, mixtures, random transforms of batches."""

from __future__ import annotations

from .batched import BatchTransform
from .copy_paste import (
    BidirectionalCopyPaste,
    BidirectionalCopyPasteD,
    BidirectionalCopyPasted,
    BidirectionalCopyPasteDict,
)
from .cutmix import RandCutMix, RandCutMixD, RandCutMixd, RandCutMixDict
from .relative_crop import RelativeCrop, RelativeCropD, RelativeCropd, RelativeCropDict
from .views import WeakStrongViews, WeakStrongViewsD, WeakStrongViewsd, WeakStrongViewsDict

__all__ = [
    "BatchTransform",
    "RelativeCrop",
    "RelativeCropD",
    "RelativeCropDict",
    "RelativeCropd",
    "BidirectionalCopyPaste",
    "BidirectionalCopyPasteD",
    "BidirectionalCopyPasteDict",
    "BidirectionalCopyPasted",
    "RandCutMix",
    "RandCutMixD",
    "RandCutMixDict",
    "RandCutMixd",
    "WeakStrongViews",
    "WeakStrongViewsD",
    "WeakStrongViewsDict",
    "WeakStrongViewsd",
]
