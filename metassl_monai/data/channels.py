# SPDX-License-Identifier: Apache-2.0
"""Images of several channels: in several files, one a channel, on one grid; or in one file, along a fourth axis.

The optional ``channels`` of a datalist names them, in the order of the files that each ``image`` then lists.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from .formats import without_suffix
from .geometry import SAME_GRID, grid_distance
from .problems import Problem

__all__ = ["GRID_REMEDY", "case_stem", "channel_problems", "channels_first", "grid_mistake", "image_files"]

StrPath = str | os.PathLike[str]

GRID_REMEDY = "resample the channels onto one grid, or pair the right files"

KEYS = ("labeled", "unlabeled", "validation", "test", "monitor")


def image_files(image: StrPath | Sequence[StrPath]) -> list[str]:
    """Return the files of an image: one, or one a channel.

    Example:
        >>> image_files("a.nii.gz"), image_files(["a_0000.nii.gz", "a_0001.nii.gz"])
        (['a.nii.gz'], ['a_0000.nii.gz', 'a_0001.nii.gz'])
    """
    return [os.fspath(file) for file in ([image] if isinstance(image, str | os.PathLike) else image)]


def case_stem(image: StrPath | Sequence[StrPath]) -> str:
    """Return the name of an image without folder and suffix; that of several files is what they begin with alike.

    Example:
        >>> case_stem(["s1/case_01_0000.nii.gz", "s1/case_01_0001.nii.gz"]), case_stem("case_01_0000.nii.gz")
        ('case_01', 'case_01_0000')
    """
    names = [without_suffix(os.path.basename(file)) for file in image_files(image)]
    common = "".join(letters[0] for letters in takewhile(lambda it: len(set(it)) == 1, zip(*names, strict=False)))
    if all(name == common for name in names):
        return common
    whole_words = re.match(r"(.*[^-_. ])[-_. ]", common + names[0][len(common) : len(common) + 1])
    return whole_words[1] if whole_words else names[0]


def channel_problems(datalist: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Yield what is wrong with the ``channels`` of a datalist, or with the files of its images.

    Example:
        >>> lists = {"channels": ["T1", "T2"], "labeled": [{"image": ["a_t1.nii"]}]}
        >>> [problem.cause for problem in channel_problems(lists, "datalist.json")]
        ['`labeled` item 0 has 1 image file for 2 channels']
    """
    names = datalist.get("channels", ["image"])
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        yield Problem(
            where, "`channels` is not a list of names", 'write it as ["T1", "FLAIR"], in the order of the files'
        )
        return
    if len(set(names)) < len(names):
        yield Problem(where, f"two of the `channels` {', '.join(names)} have one name", "give each a name of its own")
    for key in KEYS:
        items = datalist.get(key)
        for number, item in enumerate(items if isinstance(items, list) else ()):
            files = item.get("image") if isinstance(item, dict) else None
            if isinstance(files, list) and len(files) != len(names):
                count = f"{len(files)} image file{'s' if len(files) > 1 else ''} for {len(names)} channels"
                yield Problem(
                    where, f"`{key}` item {number} has {count}", "name one file for each of `channels`, in their order"
                )
            elif isinstance(files, list) and len(set(map(str, files))) < len(files):
                yield Problem(
                    where,
                    f"`{key}` item {number} names a file for two channels",
                    "name one file for each of `channels`",
                )


def grid_mistake(
    first: tuple[Sequence[int], np.ndarray], other: tuple[Sequence[int], np.ndarray], name: StrPath
) -> str | None:
    """Say why a channel does not lie on the grid of the first one; None where it does.

    Args:
        first: shape and affine of the first channel.
        other: those of another.
        name: the file of the first channel.
    """
    if tuple(first[0]) != tuple(other[0]):
        return f"its shape {tuple(map(int, other[0]))} is not {tuple(map(int, first[0]))}, that of {name}"
    distance = grid_distance(first[1], other[1], first[0])
    return f"lies up to {distance:.3g} voxels beside {name}" if distance > SAME_GRID else None


def channels_first(
    files: Sequence[str], parts: Sequence[tuple[np.ndarray, dict[str, Any]]]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return voxels and metadata of an image, with several channels in front and a single one without an axis.

    Args:
        files: its files.
        parts: what a reader made of each.

    Raises:
        ValueError: for a channel that does not lie on the grid of the first one.
    """
    voxels, meta = parts[0]
    if len(parts) > 1:
        for file, (other, its_meta) in zip(files, parts, strict=True):
            cause = grid_mistake((voxels.shape, meta["affine"]), (other.shape, its_meta["affine"]), files[0])
            if cause:
                raise ValueError(f"{file}: {cause}; {GRID_REMEDY}")
        stack = np.stack([array for array, _ in parts])
        return stack, {**meta, "original_channel_dim": 0, "case_stem": case_stem(files)}
    if voxels.ndim == 4 and meta["original_channel_dim"] == -1:
        if voxels.shape[-1] == 1:
            return voxels[..., 0], {**meta, "original_channel_dim": float("nan")}  # as MONAI says that there is none
        return np.moveaxis(voxels, -1, 0), {**meta, "original_channel_dim": 0}
    return voxels, meta
