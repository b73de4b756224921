# SPDX-License-Identifier: Apache-2.0
"""What the network makes of cases: the best, the median and the worst of the validation, and unlabeled ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor

from metassl_monai.data import read_scan
from metassl_monai.data.channels import image_files
from metassl_monai.data.pictures import gray, is_picture
from metassl_monai.metrics import label_map
from metassl_monai.report import CaseRow
from metassl_monai.report.contours import Plane, contour_figure, planes_of
from metassl_monai.report.page import Entry, Picture, Section, Table, figure_picture
from metassl_monai.report.palette import structure_color

from .run import TrainedRun
from .segment import cases_of, reason_of, segment

__all__ = ["SURE", "unlabeled_section", "validation_cases"]

SURE = 0.9
"""Confidence at or below which a voxel is called unsure."""

_UNLABELED = 4


def validation_cases(run: TrainedRun) -> Iterator[Section]:
    """Draw the best, the median and the worst case of the validation's table."""
    dice = {row["case"]: row["dice"] for row in run.scores if row["structure"] == "mean"}
    chosen = _best_median_worst(dice)
    items = [item for item in cases_of(run, "validation") if item["case"] in chosen]
    planes: dict[str, list[Plane]] = {}

    def draw(item: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        planes[item["case"]] = _planes(item, label_map(output["pred"]), output["label"])

    segment(run, items, draw, labeled=True)
    for case, rank in chosen.items():
        rows = [row for row in run.scores if row["case"] == case and row["structure"] != "mean"]
        about = f"{rank} validation case {case}, mean Dice {dice[case]:.3f}"
        title = f"{rank}: {case}, mean Dice {dice[case]:.3f}"
        pictures = [_picture(plane, about, run) for plane in planes[case]]
        yield Section(title, [f"Dice: {_each_dice(rows)}."], _legend(run, "annotation", "prediction"), (), pictures)


def unlabeled_section(run: TrainedRun) -> Iterator[Section]:
    """Draw a few unlabeled cases with what the network says of them, and measure how sure it is."""
    if run.config_file is None or not run.model.is_file() or not run.count("unlabeled"):
        return
    title = "What the network says of unlabeled cases"
    try:
        yield _unlabeled(run, cases_of(run, "unlabeled"), title)
    except Exception as error:  # pictures are not worth the page, whatever has become of the data
        yield Section(title, [f"Not possible: {reason_of(error)}"])


def _unlabeled(run: TrainedRun, items: Sequence[Mapping[str, Any]], title: str) -> Section:
    places = np.unique(np.linspace(0, len(items) - 1, min(_UNLABELED, len(items))).round().astype(int))
    records: list[dict[str, Any]] = []
    parts: list[Section] = []

    def look(item: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        confidence, classes = output["pred"].cpu().max(dim=0)
        record = {"case": item["case"], **_measured(confidence, classes, run.labels, item)}
        planes = _planes(item, classes.numpy(), None, confidence.numpy() <= SURE, output["pred"])
        about = f"Unlabeled case {item['case']}, {record['unsure']:.0%} of what it calls a structure unsure"
        parts.append(Section(item["case"], pictures=[_picture(plane, about, run) for plane in planes]))
        records.append(record)

    segment(run, [items[i] for i in places], look, labeled=False)
    header = ["case", *(name.replace("_", " ") for name in records[0] if name != "case")]
    rows = [[_cell(name, value) for name, value in record.items()] for record in records]
    caption = f"What the network says of {len(records)} of {len(items)} unlabeled cases, evenly taken from the list."
    table = Table(f"{run.name}_unlabeled", caption, header, rows, records)
    text = [f"Nobody annotated these. A voxel is unsure where no class has a confidence above {SURE:g}."]
    legend = [*_legend(run, "", "prediction"), Entry("", "hatched: unsure")]
    return Section(title, text, legend, [table], parts=parts)


def _best_median_worst(dice: Mapping[str, float]) -> dict[str, str]:
    """Return the rank of each case to draw; of two there is no median."""
    order = sorted(((value, case) for case, value in dice.items() if not math.isnan(value)), reverse=True)
    ranks = {"Best": 0, "Worst": len(order) - 1, "Median": len(order) // 2}
    first = {place: rank for rank, place in reversed(ranks.items())} if order else {}
    return {order[place][1]: first[place] for place in sorted(first)}


def _planes(
    item: Mapping[str, Any],
    prediction: np.ndarray,
    truth: Any,
    unsure: np.ndarray | None = None,
    geometry: Any = None,
) -> list[Plane]:
    geometry = truth if geometry is None else geometry
    files = image_files(item["image"])
    codes = None if is_picture(files[0]) else "".join(_codes(geometry.affine))
    image = gray(torch.as_tensor(read_scan(files, codes)), torch.as_tensor(prediction)).numpy()
    affine = None if codes is None else np.asarray(geometry.affine)
    return planes_of(image, prediction, None if truth is None else label_map(truth), unsure, affine)


def _codes(affine: Any) -> Sequence[str]:
    return list(nibabel.orientations.aff2axcodes(np.asarray(affine)))


def _picture(plane: Plane, about: str, run: TrainedRun) -> Picture:
    outlined = [name for value, name in run.labels.items() if int(value) and (plane.prediction == int(value)).any()]
    alt = f"{about}; {plane.place or 'the picture'} with contours of {', '.join(outlined) or 'no structure'}"
    sizes = f"{plane.spacing[0]:.3g} x {plane.spacing[1]:.3g} mm a voxel"
    known = any(plane.sides)
    caption = ", ".join(part for part in (plane.place, sizes if known else "size of a voxel not known") if part)
    return figure_picture(contour_figure(plane), alt, f"{caption}.")


def _legend(run: TrainedRun, truth: str, prediction: str) -> list[Entry]:
    structures = [
        Entry(structure_color(int(value)), f"{value} {name}") for value, name in run.labels.items() if int(value)
    ]
    lines = [Entry("", f"solid: {truth}")] if truth else []
    return [*structures, *lines, Entry("", f"dashed: {prediction}")]


def _each_dice(rows: Sequence[CaseRow]) -> str:
    return ", ".join(f"{row['structure']} {row['dice']:.3f}" for row in rows)


def _measured(
    confidence: torch.Tensor, classes: MetaTensor, labels: Mapping[str, str], item: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the share of unsure voxels of what is called a structure, and the size of each structure."""
    picture = is_picture(image_files(item["image"])[0])
    voxel = 1.0 if picture else abs(float(np.linalg.det(np.asarray(classes.affine)[:3, :3]))) / 1000
    inside = classes > 0
    unsure = float((confidence[inside] <= SURE).float().mean()) if inside.any() else 0.0
    unit = "pixels" if picture else "ml"
    sizes = {f"{name}_{unit}": float((classes == int(value)).sum()) * voxel for value, name in labels.items()}
    return {"unsure": unsure, **dict(list(sizes.items())[1:])}


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.1%}" if name == "unsure" else f"{value:.3g}"
