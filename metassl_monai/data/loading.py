# SPDX-License-Identifier: Apache-2.0
"""The first transform of every bundle: image and annotation of a case from their files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import ImageReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, MapTransform, Orientationd

from .orientation import AXES
from .reading import LabelClassesd, ScanReader, StrPath

__all__ = ["case_loading"]


def case_loading(
    keys: Any, datalist: StrPath | None = None, orientation: str | None = None, allow_missing_keys: bool = False
) -> Compose:
    """Make what loads image and annotation of a case as check and evaluation do: the first transform of every bundle.

    ``LoadImaged`` with :class:`ScanReader`, ``EnsureChannelFirstd``, ``Orientationd`` where there is an orientation,
    and :class:`LabelClassesd` where there is a datalist. ``Invertd`` undoes the orientation.

    Args:
        keys: ``image``, and ``label`` where there are annotations.
        datalist: the datalist of the annotations; None where only images are loaded.
        orientation: to where the axes point, such as ``"RAS"``; None leaves them as they are stored.
        allow_missing_keys: accept items without annotation.

    Example:
        >>> import tempfile
        >>> from metassl_monai.data import load_datalist, make_phantom
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     datalist = make_phantom(folder, cases=4, labeled=1, validation=1, test=1, size=(32, 32, 3))
        ...     case = case_loading(["image", "label"], datalist)(load_datalist(datalist, "labeled", folder)[0])
        >>> case["image"].shape, case["label"].unique().tolist()
        (torch.Size([1, 32, 32, 3]), [0.0, 1.0, 2.0, 3.0])
    """
    optional: dict[str, Any] = {"allow_missing_keys": allow_missing_keys}
    transforms: list[Any] = [_LoadScand(keys, **optional), EnsureChannelFirstd(keys, **optional)]
    if orientation:
        transforms.append(Orientationd(keys, axcodes=orientation, labels=AXES, **optional))
    if datalist:
        transforms.append(LabelClassesd("label", datalist, allow_missing_keys=True))
    return Compose(transforms) if datalist else _ImageLoading(transforms)


class _ImageLoading(Compose, MapTransform):
    """Loading that MONAI Deploy, which asks for the type of the first transform, knows to be for dictionaries.

    Training keeps to ``Compose`` itself, which alone MONAI flattens, and caches.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        Compose.__init__(self, transforms)
        MapTransform.__init__(self, transforms[0].keys)


class _LoadScand(LoadImaged):
    """``LoadImaged`` whose mistakes are those of the reader, and not a list of all that was tried.

    Images that a program has loaded already, as MONAI Deploy and MONAI Label may, are taken as they are.
    """

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        if any(isinstance(data.get(key), torch.Tensor) for key in self.keys):
            return dict(data)
        item: dict[Hashable, Any] = super().__call__(data, reader or ScanReader())
        return item
