# SPDX-License-Identifier: Apache-2.0
"""Images and labels whose voxels are stored along different axes: the optional ``orientation`` of a datalist.

It names, such as ``"RAS"``, to where the axes point after both were reoriented by their own affines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai.data import MetaTensor

from .problems import Problem

__all__ = ["AXES", "orientation_problems", "reoriented"]

AXES = (("L", "R"), ("P", "A"), ("I", "S"))
"""The default names of MONAI's ``Orientation``, given by name because it warns where they are left out."""


def orientation_problems(datalist: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Yield what is wrong with the ``orientation`` of a datalist, which may have none.

    Example:
        >>> [problem.cause for problem in orientation_problems({"orientation": "RAR"}, "datalist.json")]
        ["`orientation` is 'RAR'"]
    """
    codes = datalist.get("orientation")
    if codes is not None and (not isinstance(codes, str) or len(codes) != 3 or not _one_an_axis(codes)):
        yield Problem(
            where,
            f"`orientation` is {codes!r}",
            'write it as three letters, one of each of L or R, A or P, I or S: "RAS"',
        )


def reoriented(image: MetaTensor, codes: str | None) -> MetaTensor:
    """Turn an image ``(X, Y, Z)`` or ``(C, X, Y, Z)`` into an orientation; as it is where that is None.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.arange(2.0).reshape(2, 1, 1), affine=torch.eye(4))
        >>> reoriented(image, "LAS").flatten().tolist()
        [1.0, 0.0]
    """
    if codes is None:
        return image
    from monai.transforms import Orientation

    turn = Orientation(axcodes=codes, labels=AXES)
    turned: MetaTensor = turn(image) if image.ndim == 4 else turn(image[None])[0]  # type: ignore[assignment]
    return turned


def _one_an_axis(codes: str) -> bool:
    return all(sum(code in pair for code in codes) == 1 for pair in AXES)
