# SPDX-License-Identifier: Apache-2.0
"""Scores predicted label maps on disk against the annotations of a datalist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from metassl_monai.data import (
    check_datalist,
    check_images,
    load_datalist,
    load_oriented,
    map_label_values,
    read_datalist,
)
from metassl_monai.data.pictures import first_channel, is_picture, large_pictures
from metassl_monai.metrics import segmentation_metrics
from metassl_monai.report import case_rows, write_case_table

from .errors import UserError, refuse_problems
from .writable import check_writable

__all__ = ["evaluate_predictions", "load_annotation", "load_prediction", "prediction_path"]


def evaluate_predictions(
    datalist: str | Path, dataset_dir: str | Path, split: str, predictions: str | Path, out: str | Path
) -> list[dict[str, Any]]:
    """Score the predictions of a split and write ``cases.csv`` and ``metrics.json``.

    Pictures have no voxel size: their distances in mm are NaN, and those in voxels are in pixels.

    Args:
        datalist: the datalist file.
        dataset_dir: folder of its images and labels.
        split: ``"validation"`` or ``"test"``.
        predictions: folder that ``inference.json`` wrote to.
        out: folder of the tables.

    Returns:
        The rows of the table, see :func:`metassl_monai.report.case_rows`.

    Raises:
        UserError: when ``out`` cannot be written to, a file is damaged, or a prediction is missing or not in the
            geometry of its annotation.
    """
    if split not in ("validation", "test"):
        raise UserError(f"--split {split}: choose validation or test.")
    check_writable(out)
    items = load_datalist(datalist, split, dataset_dir)
    if not items:
        raise UserError(f"{datalist}: its list {split!r} is empty, so there is nothing to evaluate.")
    refuse_problems(check_datalist(datalist, dataset_dir, lists=[split], progress=True))
    files = [prediction_path(item["image"], dataset_dir, predictions) for item in items]
    refuse_problems(check_images(file for file in files if file.is_file()))
    content = read_datalist(datalist)
    rows: list[dict[str, Any]] = []
    for item, file in zip(tqdm(items, desc="evaluating", unit="case"), files, strict=True):
        truth = load_annotation(item, content)
        prediction = load_prediction(file, truth, content)
        spacing = None if is_picture(item["label"]) else truth.pixdim.tolist()
        metrics = segmentation_metrics(prediction.numpy(), truth.numpy(), content["labels"], spacing)
        rows += case_rows(item["case"], item["subject"], metrics)
    about = {"datalist": str(datalist), "split": split, "predictions": str(predictions)}
    write_case_table(rows, out, about=about)
    return rows


def prediction_path(image: str | Path, dataset_dir: str | Path, predictions: str | Path) -> Path:
    """Return where ``inference.json`` puts the prediction of an image: the same sub-folder, ``<name>_seg.nii.gz``.

    Where the image is a picture, such as JPEG, so is the prediction: ``<name>_seg.png``.
    """
    relative = Path(image).resolve().relative_to(Path(dataset_dir).resolve())
    stem = Path(relative.name.removesuffix(".gz")).stem
    suffix = ".png" if is_picture(relative) else ".nii.gz"
    return Path(predictions) / relative.parent / f"{stem}_seg{suffix}"


def load_annotation(item: Mapping[str, str], datalist: Mapping[str, Any]) -> MetaTensor:
    """Load the annotation of a case.

    Args:
        item: an item of :func:`metassl_monai.data.load_datalist`.
        datalist: the content of the datalist.

    Returns:
        Class indices, ``(X, Y, Z)`` or, of a picture, ``(X, Y)``.
    """
    with large_pictures():
        label = first_channel(load_oriented(item["label"], datalist.get("orientation")))
    classes = map_label_values(label.numpy(), datalist.get("label_values"), datalist.get("label_threshold"))
    return MetaTensor(torch.as_tensor(classes), meta=label.meta)


def load_prediction(file: Path, truth: MetaTensor, datalist: Mapping[str, Any]) -> MetaTensor:
    """Load the prediction of a case.

    Args:
        file: see :func:`prediction_path`.
        truth: its annotation, see :func:`load_annotation`.
        datalist: the content of the datalist.

    Returns:
        Class indices in the annotation's geometry.

    Raises:
        UserError: when the file is missing or in another geometry.
    """
    if not file.is_file():
        raise UserError(f"{file}: no prediction. Run inference for this split first, with the same --dataset_dir.")
    with large_pictures():
        prediction = load_oriented(file, datalist.get("orientation"))
    if prediction.shape != truth.shape or not np.allclose(prediction.affine, truth.affine, atol=1e-3):
        raise UserError(
            f"{file}: shape {tuple(prediction.shape)} or affine differ from the annotation's "
            f"{tuple(truth.shape)}. Predictions must be in the geometry of the original image."
        )
    return prediction
