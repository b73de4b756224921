# SPDX-License-Identifier: Apache-2.0
"""Predictions as DICOM Segmentation objects, beside the series that they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

import metassl_monai
from metassl_monai.bundle.errors import UserError
from metassl_monai.data.dicom_slices import read_slices
from metassl_monai.files import atomic_write

from .extras import required
from .labels import Label
from .seg_nrrd import LPS

__all__ = ["write_dicom_seg"]

PRODUCT = "metassl_monai"


def write_dicom_seg(label_map: Path, series: Path, labels: Iterable[Label], path: Path) -> None:
    """Write a label map as a binary DICOM SEG of the series that it was made from.

    Patient and study are those of the series; each structure is one segment, its type a private code with its name,
    since a name does not tell a code of SNOMED CT.

    Args:
        label_map: a NIfTI file on the grid of the series.
        series: the folder of its slices.
        labels: the structures, which become segments 1, 2, ...
        path: the file to write.

    Raises:
        UserError: where highdicom is not installed, or the series names no frame of reference.
    """
    hd = required("highdicom", "dicom-seg")
    pydicom = required("pydicom", "dicom-seg")
    labels = list(labels)
    slices = [pydicom.dcmread(piece.file) for piece in read_slices(series)[0]]
    if any("FrameOfReferenceUID" not in each for each in slices):
        raise UserError(f"{series}: names no frame of reference, which a DICOM SEG needs: leave dicom-seg out.")
    segmentation = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=_volume(hd, label_map, labels, slices),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(hd, number, label) for number, label in enumerate(labels, start=1)],
        series_instance_uid=hd.UID(),
        series_number=1000,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=PRODUCT,
        software_versions=metassl_monai.__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
        series_description="Automatic segmentation",
    )
    with atomic_write(path, "wb") as file:
        segmentation.save_as(file)


def _volume(hd: Any, label_map: Path, labels: list[Label], slices: list[Any]) -> Any:
    """Return the numbers of segments on the grid of the slices."""
    image = nibabel.load(label_map)
    values = np.asarray(image.dataobj)  # type: ignore[attr-defined]
    numbers = np.zeros(values.shape, np.uint8)
    for number, label in enumerate(labels, start=1):
        numbers[values == label.value] = number
    place = {"coordinate_system": "PATIENT", "frame_of_reference_uid": slices[0].FrameOfReferenceUID}
    volume = hd.Volume(numbers, LPS @ image.affine, **place)  # type: ignore[attr-defined]
    return volume.match_geometry(hd.get_volume_from_series(slices))


def _description(hd: Any, number: int, label: Label) -> Any:
    structure = hd.sr.CodedConcept("91723000", "SCT", "Anatomical structure")
    kind = hd.sr.CodedConcept(f"label-{label.value}", "99METASSL", label.name[:64])
    learned = hd.sr.CodedConcept("123109", "DCM", "Artificial Intelligence")
    algorithm = hd.AlgorithmIdentificationSequence(PRODUCT, learned, metassl_monai.__version__)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=structure,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=hd.color.CIELabColor.from_rgb(*(round(255 * part) for part in label.color)),
    )
