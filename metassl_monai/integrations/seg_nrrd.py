# SPDX-License-Identifier: Apache-2.0
"""Segmentations of 3D Slicer: a label map with the name and color of each structure in one file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np

from metassl_monai.files import atomic_write

from .extras import required
from .labels import Label

__all__ = ["LPS", "write_seg_nrrd"]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the axes of NIfTI, right, front and up, to those of DICOM and NRRD: left, back and up."""


def write_seg_nrrd(label_map: Path, labels: Iterable[Label], path: Path) -> None:
    """Write a label map as ``.seg.nrrd``, on the same grid.

    Args:
        label_map: a NIfTI file.
        labels: its structures; those that are absent are listed as well.
        path: the file to write.

    Raises:
        UserError: where slicerio is not installed.
    """
    slicerio = required("slicerio", "seg.nrrd")
    image = nibabel.load(label_map)
    voxels = np.asarray(image.dataobj)  # type: ignore[attr-defined]
    segments = [
        {"id": f"Segment_{label.value}", "name": label.name, "color": label.color, "labelValue": label.value}
        for label in labels
    ]
    content = {"voxels": voxels, "ijkToLPS": LPS @ image.affine, "segments": segments}  # type: ignore[attr-defined]
    content["containedRepresentationNames"] = ["Binary labelmap"]
    with atomic_write(path, "wb") as file:
        slicerio.write_segmentation(file, content)
