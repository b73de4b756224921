# SPDX-License-Identifier: Apache-2.0
"""Where the structures lie, learned from the labeled cases alone.

The published protocol of LA crops each volume, test volumes included, to the box of *its own* annotation, which nobody
has for a new patient. This box is one for all volumes, and no other annotation is read for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from monai.transforms.utils import generate_spatial_bounding_box

from .datalist import load_datalist, read_datalist
from .problems import DatalistError
from .reading import read_label

__all__ = ["labeled_box"]

Fractions = tuple[float, ...]


def labeled_box(
    datalist: str | os.PathLike[str],
    dataset_dir: str | os.PathLike[str],
    margin: Sequence[float | None] = (0.05, 0.05, None),
    orientation: str | None = None,
) -> tuple[Fractions, Fractions]:
    """Find the box that holds the foreground of all labeled training cases, in fractions of the image's axes.

    The axes are those of the orientation, or without one those of each file, so the cases of one data set must share
    them then. Use the box with :class:`metassl_monai.transforms.RelativeCropd`, right after
    :class:`metassl_monai.data.LoadCased` with the same orientation.

    Args:
        datalist: the datalist; only its list ``labeled`` is used.
        dataset_dir: the folder that its paths are relative to.
        margin: for each axis, by which fraction of the axis the box is widened at either end, within the image; None
            leaves the axis whole. The default crops x and y, as the published protocol does.
        orientation: to where the axes point; by default the datalist's ``orientation``, or as the files are stored.

    Returns:
        Start and end of the box on each axis, from 0 to 1.

    Raises:
        DatalistError: if the datalist is invalid, an annotation has not one axis for each entry of ``margin``, or no
            labeled case has any foreground.

    Example:
        >>> import tempfile
        >>> from metassl_monai.data import make_phantom
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     datalist = make_phantom(folder, cases=4, labeled=1, validation=1, test=1, size=(32, 32, 3))
        ...     start, end = labeled_box(datalist, folder)
        >>> 0 < start[0] < end[0] < 1, (start[2], end[2])
        (True, (0.0, 1.0))
    """
    files = [item["label"] for item in load_datalist(datalist, "labeled", dataset_dir)]
    content = read_datalist(datalist)
    content["orientation"] = orientation or content.get("orientation")
    labels = ((file, read_label(file, content).numpy()) for file in files)
    boxes = [box for file, label in labels if (box := _box(file, label, len(margin))) is not None]
    if not boxes:
        raise DatalistError(datalist, "no labeled case has any foreground", "annotate the cases in `labeled`")
    start, end = np.min(boxes, axis=0)[0], np.max(boxes, axis=0)[1]
    whole = np.array([edge is None for edge in margin])
    widen = np.array([edge or 0.0 for edge in margin])
    start, end = np.where(whole, 0.0, start - widen), np.where(whole, 1.0, end + widen)
    return tuple(start.clip(0, 1).tolist()), tuple(end.clip(0, 1).tolist())


def _box(file: str, label: np.ndarray, axes: int) -> np.ndarray | None:
    """Return start and end (2, axes) of the foreground in fractions, None where there is none."""
    if label.ndim != axes:
        raise DatalistError(file, f"is {label.ndim}D, and the margin has {axes} axes", "give one margin an axis")
    if not (label > 0).any():
        return None
    return np.array(generate_spatial_bounding_box(label[None] > 0)) / label.shape
