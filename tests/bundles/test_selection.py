# SPDX-License-Identifier: Apache-2.0
"""The value by which the best network is kept is the one in the table of its evaluation."""

from __future__ import annotations

import json

import pytest
import torch

from metassl_monai.bundle.locate import bundle_names
from metassl_monai.report import read_history


@pytest.fixture
def hard_data(own_copy, erase):
    """Data whose validation has two frames of a subject, a structure in no annotation, and a case without any."""

    def make(bundle):
        datalist = own_copy(bundle)
        content = json.loads(datalist.read_text())
        content["validation"] += content.pop("test")
        first, second = content["validation"][:2]
        second["subject"] = first["subject"]
        if len(content["labels"]) > 2:
            for item in content["validation"]:
                erase(datalist.parent / item["label"], 1)
        erase(datalist.parent / content["validation"][-1]["label"])
        datalist.write_text(json.dumps({**content, "test": []}))
        return {"dataset_dir": str(datalist.parent), "datalist": str(datalist)}

    return make


def table(folder):
    summary = json.loads((folder / "evaluation_validation" / "metrics.json").read_text())["summary"]
    return {row["structure"]: row["mean"] for row in summary if row["metric"] == "dice"}


@pytest.mark.parametrize("bundle", bundle_names())
def test_the_best_network_is_kept_by_the_value_of_its_table(bundle, workflow, hard_data, refusal, tmp_path):
    data = hard_data(bundle)
    training = workflow(bundle, ["train", "supervised", "plain"], keep="best", val_interval=1, **data)
    assert refusal(training) is None
    history = read_history(tmp_path / "out" / "history.csv")
    state = training.evaluator.state
    assert state.best_metric == max(history["val_mean_dice"])
    assert refusal(workflow(bundle, ["train", "supervised", "plain", "evaluate"], **data), "evaluating") is None
    scores = table(tmp_path / "out")
    assert scores["mean"] == pytest.approx(state.best_metric, abs=1e-6)
    for structure, score in scores.items():
        if structure != "mean" and score is not None:
            column = history[f"val_dice/{structure.replace(' ', '_')}"]
            assert score == pytest.approx(column[state.best_metric_epoch - 1], abs=1e-6)


def test_a_structure_found_where_there_is_none_counts(workflow, hard_data, refusal, tmp_path):
    """A network that says "left ventricle" everywhere."""
    data, bundle = hard_data("phantom_segmentation"), "phantom_segmentation"
    network = torch.nn.Conv2d(1, 4, 1)
    torch.nn.init.zeros_(network.weight)
    network.bias.data = torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.save(network.state_dict(), tmp_path / "model.pt")
    definition = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 4, "kernel_size": 1}
    ids = {"network_def": definition, "ckpt_path": str(tmp_path / "model.pt"), **data}
    evaluation = workflow(bundle, ["train", "supervised", "plain", "evaluate"], **ids)
    assert refusal(evaluation, "evaluating") is None
    rows = json.loads((tmp_path / "out" / "evaluation_validation" / "metrics.json").read_text())["cases"]
    first, second, without = (row["dice"] for row in rows if row["structure"] == "left ventricle")
    assert first > 0
    assert without == 0
    # two frames of a subject, each with a structure that was missed, and a subject without any structure
    expected = ((first + 0) / 2 + (second + 0) / 2) / 2 / 2
    value = evaluation.parser.get_parsed_content("validate::evaluator").state.metrics["val_mean_dice"]
    assert value == pytest.approx(expected)
    assert value == pytest.approx(table(tmp_path / "out")["mean"])
