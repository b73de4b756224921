# SPDX-License-Identifier: Apache-2.0
"""Images and labels whose voxels are stored along different axes: the optional ``orientation`` of a datalist.

It names, such as ``"RAS"``, to where the axes point after both were reoriented by their own affines. In a bundle config
the same is ``monai.transforms.Orientationd`` with these ``axcodes``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation

__all__ = ["load_oriented", "orientation_mistakes", "reoriented"]

AXES = (("L", "R"), ("P", "A"), ("I", "S"))


def orientation_mistakes(datalist: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield cause and remedy of what is wrong with the ``orientation`` of a datalist, which may have none.

    Example:
        >>> [cause for cause, _ in orientation_mistakes({"orientation": "RAR"})]
        ["`orientation` is 'RAR'"]
    """
    codes = datalist.get("orientation")
    if codes is not None and (not isinstance(codes, str) or len(codes) != 3 or not _one_an_axis(codes)):
        yield f"`orientation` is {codes!r}", 'write it as three letters, one of each of L or R, A or P, I or S: "RAS"'


def reoriented(image: MetaTensor, codes: str | None) -> MetaTensor:
    """Turn an image ``(X, Y, Z)`` into an orientation; as it is where that is None.

    Example:
        >>> import torch
        >>> image = MetaTensor(torch.arange(2.0).reshape(2, 1, 1), affine=torch.eye(4))
        >>> reoriented(image, "LAS").flatten().tolist()
        [1.0, 0.0]
    """
    if codes is None:
        return image
    # Named, because MONAI warns where its default names are taken.
    turned: MetaTensor = Orientation(axcodes=codes, labels=AXES)(image[None])[0]  # type: ignore[assignment]
    return turned


def load_oriented(file: str | os.PathLike[str], codes: str | None) -> MetaTensor:
    """Load an image, which may be a folder with a DICOM series, in an orientation; in its own where that is None."""
    return reoriented(LoadImage(image_only=True)(file), codes)


def _one_an_axis(codes: str) -> bool:
    return all(sum(code in pair for code in codes) == 1 for pair in AXES)
