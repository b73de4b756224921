# SPDX-License-Identifier: Apache-2.0
"""Scores predicted label maps on disk against the annotations of a datalist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from metassl_monai.bundle.errors import UserError, refuse, refuse_problems
from metassl_monai.bundle.writable import check_writable
from metassl_monai.data import (
    check_datalist,
    check_images,
    load_datalist,
    prediction_mistakes,
    prediction_path,
    read_datalist,
    read_label,
    read_scan,
)
from metassl_monai.data.geometry import SAME_GRID, grid_distance
from metassl_monai.data.label_values import label_classes, label_problem
from metassl_monai.data.pictures import is_picture
from metassl_monai.handlers import attach_tables
from metassl_monai.metrics import segmentation_metrics
from metassl_monai.progress import Progress
from metassl_monai.report import case_rows, format_summary, summarize, write_case_table

from .show import show_json, show_table

__all__ = ["evaluate_predictions", "load_prediction", "show_scores"]


def evaluate_predictions(
    datalist: str | Path,
    dataset_dir: str | Path,
    split: str,
    predictions: str | Path,
    out: str | Path,
    raw: bool = False,
) -> list[dict[str, Any]]:
    """Score the predictions of a split and write ``cases.csv`` and ``metrics.json``.

    Where ``out`` lies in the output folder of a tracked training, its MLflow run gets the tables.

    Pictures have no voxel size: their distances in mm are NaN, and those in voxels are in pixels.

    Args:
        datalist: the datalist file.
        dataset_dir: folder of its images and labels.
        split: ``"validation"`` or ``"test"``.
        predictions: folder that ``inference.json`` or ``metassl infer`` wrote to.
        out: folder of the tables.
        raw: predictions hold the values that annotations have in their files, as ``metassl infer --images`` writes
            them, and not classes.

    Returns:
        The rows of the table, see :func:`metassl_monai.report.case_rows`.

    Raises:
        UserError: when ``out`` cannot be written to, a file is damaged, or a prediction is missing, has values that are
            no classes, or is not in the geometry of its annotation.
    """
    if split not in ("validation", "test"):
        raise UserError(f"--split {split}: choose validation or test.")
    check_writable(out)
    items = load_datalist(datalist, split, dataset_dir)
    if not items:
        raise UserError(f"{datalist}: its list {split!r} is empty, so there is nothing to evaluate.")
    refuse_problems(check_datalist(datalist, dataset_dir, lists=[split], progress=True))
    images = [item["image"] for item in items]
    refuse(prediction_mistakes(images, dataset_dir, predictions))
    files = [prediction_path(image, dataset_dir, predictions) for image in images]
    refuse_problems(check_images([file for file in files if file.is_file()], progress=True))
    content = read_datalist(datalist)
    rows: list[dict[str, Any]] = []
    for item, file in zip(Progress(items, desc="evaluating", unit="case"), files, strict=True):
        truth = read_label(item["label"], content)
        prediction = load_prediction(file, truth, content, raw)
        spacing = None if is_picture(item["label"]) else truth.pixdim.tolist()
        metrics = segmentation_metrics(prediction.numpy(), truth.numpy(), content["labels"], spacing)
        rows += case_rows(item["case"], item["subject"], metrics)
    about = {"datalist": str(datalist), "split": split, "predictions": str(predictions)}
    write_case_table(rows, out, about=about)
    attach_tables(Path(out))
    return rows


def show_scores(rows: Sequence[dict[str, Any]], out: str | Path, as_json: bool = False) -> None:
    """Print the mean of each metric of each structure over the subjects, with its interval.

    Args:
        rows: those of :func:`evaluate_predictions`.
        out: the folder of the tables, which is named below the printed one.
        as_json: print the summary as JSON.
    """
    summary = summarize(rows)
    if as_json:
        show_json(summary)
    else:
        text = f"Mean over subjects with its 95 % interval. Every case is in {Path(out) / 'cases.csv'}."
        show_table(format_summary(summary), text)


def load_prediction(file: Path, truth: MetaTensor, datalist: Mapping[str, Any], raw: bool = False) -> MetaTensor:
    """Load the prediction of a case.

    Args:
        file: see :func:`metassl_monai.data.prediction_path`.
        truth: its annotation, see :func:`metassl_monai.data.read_label`.
        datalist: the content of the datalist.
        raw: the file holds raw values of annotations, which the datalist maps to classes.

    Returns:
        Class indices in the annotation's geometry.

    Raises:
        UserError: when the file is missing, in another geometry, or has a value that is no class.
    """
    if not file.is_file():
        raise UserError(f"{file}: no prediction. Run inference for this split first, with the same --dataset_dir.")
    prediction = read_scan(file, datalist.get("orientation"))
    # unless told otherwise a prediction holds classes, whatever raw values the annotations have
    fields = ("labels", "label_values") if raw else ("labels",)
    mapping = {field: datalist[field] for field in fields if field in datalist}
    problem = label_problem(prediction.numpy(), mapping, str(file))
    if problem:
        hint = " Pass --raw where they hold the annotations' own values." if "label_values" in datalist else ""
        held = "the annotations' own values" if raw else "the classes themselves"
        raise UserError(f"{file}: {problem.cause}: predictions hold {held}, not masks or probabilities.{hint}")
    if prediction.shape != truth.shape:
        raise UserError(
            f"{file}: its shape {tuple(prediction.shape)} is not {tuple(truth.shape)}, that of the annotation. "
            "Predictions must be in the geometry of the original image."
        )
    distance = grid_distance(truth.affine, prediction.affine, truth.shape)
    if distance > SAME_GRID:
        raise UserError(
            f"{file}: lies up to {distance:.3g} voxels beside the annotation. "
            "Predictions must be in the geometry of the original image."
        )
    classes = torch.as_tensor(label_classes(prediction.numpy(), mapping, file))
    return MetaTensor(classes, meta=prediction.meta)
