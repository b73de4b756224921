# SPDX-License-Identifier: Apache-2.0
"""The key metric of a validation equals the table of an evaluation, on any number of ranks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Transform
from torch import Tensor, nn

from metassl_monai.handlers import CaseTable, SubjectDice

LABELS = {"0": "background", "1": "right ventricle", "2": "myocardium", "3": "left ventricle"}


class Readout(nn.Module):
    """Logits that say what class the image shows."""

    def forward(self, x: Tensor) -> Tensor:
        return -(x - torch.arange(4.0).view(1, 4, 1, 1)).abs()


def row(*values: int) -> MetaTensor:
    return MetaTensor(torch.tensor(values, dtype=torch.float).view(1, 1, -1))


def item(subject: str | None, prediction: Tensor, truth: Tensor, number: int) -> dict[str, Any]:
    named = {} if subject is None else {"subject": subject}
    return {"image": prediction, "label": truth, "case": f"case{number}", **named}


CASES = [
    ("a", row(1, 1, 2, 0), row(1, 1, 0, 0)),  # 1: 1; 2: 0, found where it is not; 3: in neither
    ("a", row(0, 1, 2, 2), row(1, 1, 2, 2)),  # 1: 2/3; 2: 1
    ("b", row(1, 0, 0, 0), row(1, 0, 3, 0)),  # 1: 1; 3: 0, missed
]
MEAN = ((1 / 2 + 5 / 6) / 2 + 1 / 2) / 2
STRUCTURES = {"right_ventricle": (5 / 6 + 1) / 2, "myocardium": 1 / 2, "left_ventricle": 0.0}


class ClassIndices(Transform):
    """Leave class indices where :class:`AsDiscreted` would leave one-hot masks."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "pred": data["pred"].argmax(0, keepdim=True)}


def evaluate(cases: list[Any], handlers: list[Any] = (), postprocessing: Any = None, **arguments: Any) -> Any:
    engine = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset([item(*case, n) for n, case in enumerate(cases)]), **arguments),
        network=Readout(),
        postprocessing=postprocessing or AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=4),
        key_val_metric={"val_mean_dice": SubjectDice(LABELS)},
        val_handlers=handlers,
    )
    engine.run()
    return engine


def test_structures_cases_and_subjects_are_averaged_as_in_the_table(tmp_path: Path) -> None:
    engine = evaluate(CASES, [CaseTable(tmp_path, LABELS, has_spacing=False)])
    metrics = engine.state.metrics
    assert metrics["val_mean_dice"] == engine.state.best_metric == pytest.approx(MEAN)
    summary = json.loads((tmp_path / "metrics.json").read_text())["summary"]
    table = {entry["structure"]: entry["mean"] for entry in summary if entry["metric"] == "dice"}
    assert metrics["val_mean_dice"] == table.pop("mean")
    for structure, value in table.items():
        name = structure.replace(" ", "_")
        assert metrics[f"val_dice/{name}"] == value == pytest.approx(STRUCTURES[name])
    assert set(metrics) == {"val_mean_dice", *(f"val_dice/{name}" for name in STRUCTURES)}


@pytest.mark.parametrize("arguments", [{"batch_size": 3}, {"postprocessing": ClassIndices()}], ids=["batch", "labels"])
def test_batches_and_class_indices_give_the_same(arguments: dict[str, Any]) -> None:
    assert evaluate(CASES, **arguments).state.metrics["val_mean_dice"] == pytest.approx(MEAN)


def test_a_case_without_a_subject_is_one_of_its_own() -> None:
    cases = [(None, prediction, truth) for _, prediction, truth in CASES]
    assert evaluate(cases).state.metrics["val_mean_dice"] == pytest.approx((1 / 2 + 5 / 6 + 1 / 2) / 3)


def test_another_validation_starts_anew() -> None:
    engine = evaluate(CASES)
    engine.run()
    assert engine.state.metrics["val_mean_dice"] == pytest.approx(MEAN)


def test_nothing_anywhere_is_no_number_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    metrics = evaluate([("a", row(0, 0), row(0, 0))]).state.metrics
    assert math.isnan(metrics["val_mean_dice"])
    assert math.isnan(metrics["val_dice/myocardium"])
    assert "val_mean_dice is NaN" in caplog.text


RANK = """
import sys
import torch.distributed as dist
from tests.handlers.test_subject_dice import CASES, evaluate

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
# the two frames of a subject come to different ranks, and one rank has fewer cases
print(evaluate(CASES[rank::2]).state.metrics["val_mean_dice"])
dist.destroy_process_group()
"""


def test_two_ranks_give_the_value_of_one(tmp_path: Path) -> None:
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    root = Path(__file__).parents[2]
    ranks = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", RANK, str(rank), rendezvous], cwd=root, stdout=-1)
        for rank in (0, 1)
    ]
    for rank in ranks:
        output, _ = rank.communicate(timeout=120)
        assert rank.returncode == 0
        assert float(output.decode().split()[-1]) == pytest.approx(MEAN)
