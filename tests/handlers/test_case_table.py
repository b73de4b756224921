# SPDX-License-Identifier: Apache-2.0
"""The table of an evaluation against metrics computed aside from it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted
from torch import Tensor, nn

from metassl_monai.handlers import CaseTable
from metassl_monai.metrics import segmentation_metrics

LABELS = {"0": "background", "1": "RV", "2": "LV"}
SPACINGS = [(1.5, 1.25, 8.0), (0.5, 2.0, 3.0), (1.0, 1.0, 10.0)]


class Readout(nn.Module):
    """Logits that say what class the image shows."""

    def forward(self, x: Tensor) -> Tensor:
        return -(x - torch.arange(3.0).view(1, 3, 1, 1, 1)).abs()


def blob(generator: torch.Generator) -> Tensor:
    volume = torch.zeros(1, 9, 8, 4)
    for value in (1, 2):
        x, y, z = (int(torch.randint(0, high, (), generator=generator)) for high in (5, 4, 2))
        volume[0, x : x + 4, y : y + 4, z : z + 2] = value
    return volume


@pytest.fixture
def cases() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for number, spacing in enumerate(SPACINGS):
        affine = torch.diag(torch.tensor([*spacing, 1.0]))
        image, label = (MetaTensor(blob(generator), affine=affine) for _ in range(2))
        found.append(
            {"image": image, "label": label, "case": f"p{number // 2}_f{number}", "subject": f"p{number // 2}"}
        )
    found[2]["image"][found[2]["image"] == 2] = 0  # a structure that the prediction misses: NaN distances
    return found


def evaluator(cases: list[dict[str, Any]], table: CaseTable, batch_size: int = 1) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset(cases), batch_size=batch_size),
        network=Readout(),
        postprocessing=AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=3),
        val_handlers=[table],
    )


def expected_metrics(case: dict[str, Any], spacing: tuple[float, ...]) -> dict[str, dict[str, float]]:
    return segmentation_metrics(case["image"][0].numpy(), case["label"][0].numpy(), LABELS, spacing)


def same(first: float | None, second: float, digits: float) -> bool:
    first = math.nan if first is None else float(first)
    return math.isnan(second) if math.isnan(first) else first == pytest.approx(second, rel=digits)


def test_numbers_are_those_of_segmentation_metrics_in_the_geometry_of_the_file(
    cases: list[dict[str, Any]], tmp_path: Path
) -> None:
    evaluator(cases, CaseTable(tmp_path, LABELS)).run()
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = {(row["case"], row["structure"]): row for row in csv.DictReader(file)}
    document = json.loads((tmp_path / "metrics.json").read_text())
    full = {(row["case"], row["structure"]): row for row in document["cases"]}
    assert set(rows) == set(full) == {(case["case"], s) for case in cases for s in ("RV", "LV", "mean")}
    for case, spacing in zip(cases, SPACINGS, strict=True):
        for structure, metrics in expected_metrics(case, spacing).items():
            key = (case["case"], structure)
            assert rows[key]["subject"] == full[key]["subject"] == case["subject"]
            for name, value in metrics.items():
                assert same(rows[key][name], value, 1e-5), (key, name)
                assert same(full[key][name], value, 1e-6), (key, name)
    assert full["p0_f0", "RV"]["hd95_mm"] != full["p0_f0", "RV"]["hd95_voxel"]
    assert full["p1_f2", "LV"]["dice"] == 0
    assert full["p1_f2", "LV"]["hd95_mm"] is None


def test_summary_counts_subjects_and_missing_distances(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    evaluator(cases, CaseTable(tmp_path, LABELS)).run()
    summary = json.loads((tmp_path / "metrics.json").read_text())["summary"]
    [row] = [row for row in summary if (row["structure"], row["metric"]) == ("LV", "hd95_mm")]
    assert (row["cases"], row["subjects"], row["nan"]) == (3, 1, 1)
    [row] = [row for row in summary if (row["structure"], row["metric"]) == ("LV", "dice")]
    assert (row["cases"], row["subjects"], row["nan"]) == (3, 2, 0)


def test_batches_of_several_cases_give_the_same_table(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    for size in (1, 3):
        evaluator(cases, CaseTable(tmp_path / str(size), LABELS), batch_size=size).run()
    tables = [(tmp_path / str(size) / "cases.csv").read_text() for size in (1, 3)]
    assert tables[0] == tables[1]
    assert tables[0].count("\n") == 1 + 3 * 3


def test_second_evaluation_replaces_the_table_of_the_first(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    engine = evaluator(cases, CaseTable(tmp_path, LABELS))
    engine.run()
    first = (tmp_path / "cases.csv").read_text()
    engine.run()
    assert (tmp_path / "cases.csv").read_text() == first
