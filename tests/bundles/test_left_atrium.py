# SPDX-License-Identifier: Apache-2.0
"""What the left atrium has and the other bundles have not: NRRD in, whole volumes, no validation list."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage

from metassl_monai.apps.evaluate import evaluate_predictions
from metassl_monai.data import load_datalist, prediction_path, prepare_la, write_datalist

LA = "la_atrium_mri_segmentation"


@pytest.fixture
def trained(workflow, tmp_path):
    training = workflow(LA, ["train", "supervised"])
    training.initialize()
    training.run()
    return training


def test_predictions_of_whole_volumes_lie_in_the_geometry_of_their_images(trained, workflow, la, tmp_path):
    network = str(tmp_path / "out" / "models" / "model.pt")
    inference = workflow(LA, ["inference"], "infer", ckpt_path=network, split="validation", save_probabilities=True)
    inference.initialize()
    inference.run()
    items = load_datalist(la, "validation", la.parent)
    assert len(items) == 2
    for item in items:
        image = LoadImage(image_only=True)(item["image"])
        prediction = nibabel.load(prediction_path(item["image"], la.parent, tmp_path / "out" / "predictions"))
        assert prediction.shape == tuple(image.shape)
        np.testing.assert_allclose(prediction.affine, image.affine.numpy(), atol=1e-5)
        probabilities = nibabel.load(str(prediction.get_filename()).replace("_seg", "_probabilities"))
        np.testing.assert_allclose(np.asarray(probabilities.dataobj).sum(-1), 1, atol=1e-3)
    rows = evaluate_predictions(la, la.parent, "validation", tmp_path / "out" / "predictions", tmp_path / "table")
    assert {row["structure"] for row in rows} == {"left atrium", "mean"}


def test_without_a_validation_list_the_last_network_is_kept(workflow, la, tmp_path):
    datalist = tmp_path / "datalist.json"
    write_datalist(prepare_la(la.parent, labeled=1), datalist)
    training = workflow(LA, ["train", "cps"], datalist=str(datalist))
    training.initialize()
    training.run()
    kept = torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True)
    assert all(value.equal(kept[key]) for key, value in training.trainer.network.state_dict().items())


def test_keeping_the_best_needs_validation_cases(workflow, refusal, la, tmp_path):
    datalist = tmp_path / "datalist.json"
    write_datalist(prepare_la(la.parent, labeled=1), datalist)
    training = workflow(LA, ["train", "cps"], datalist=str(datalist), keep="best")
    assert "'validation' is empty: add cases to it, or pass --keep last" in refusal(training)


@pytest.mark.parametrize("protocol", ["whole", "published"])
def test_evaluation_crops_and_comes_back(trained, protocol, workflow, tmp_path):
    evaluation = workflow(LA, ["train", "supervised", "evaluate"], protocol=protocol, run_id="evaluating")
    evaluation.initialize()
    evaluation.run_id = "evaluating"
    evaluation.run()
    table = json.loads((tmp_path / "out" / "evaluation_validation" / "metrics.json").read_text())
    assert len({row["case"] for row in table["cases"]}) == 2


def test_the_box_is_that_of_the_labeled_cases(workflow, la):
    parser = workflow(LA, ["train"]).parser
    start, end = parser.get_parsed_content("heart_box")
    [item] = load_datalist(la, "labeled", la.parent)
    label = LoadImage(image_only=True)(item["label"]).numpy()
    for axis in (0, 1):
        used = np.flatnonzero(label.any(axis=tuple(a for a in range(3) if a != axis)))
        size = label.shape[axis]
        assert start[axis] == pytest.approx(max(0, used[0] / size - 0.1))
        assert end[axis] == pytest.approx(min(1, (used[-1] + 1) / size + 0.1))
    assert (start[2], end[2]) == (0, 1)
