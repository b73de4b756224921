# SPDX-License-Identifier: Apache-2.0
"""The bundles of BraTS 2019, Pancreas-CT and AbdomenCT-1K: what their preprocessing does, and the way back."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage

from metassl_monai.apps.evaluate import evaluate_predictions
from metassl_monai.data import load_datalist, prediction_path, prepare_pancreas_ct, write_datalist

ABDOMEN = "abdomenct1k_ct_segmentation"
BRATS = "brats2019_mri_segmentation"
PANCREAS = "pancreas_ct_segmentation"
BUNDLES = (ABDOMEN, BRATS, PANCREAS)


@pytest.fixture
def trained(workflow):
    def train(bundle, **overrides):
        training = workflow(bundle, ["train", "supervised"], **overrides)
        training.initialize()
        training.run()
        return training

    return train


def scores(folder):
    return {(row["case"], row["structure"]): row["dice"] for row in json.loads(folder.read_text())["cases"]}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_predictions_lie_in_the_geometry_of_their_images_and_score_the_same_on_both_ways(
    bundle, trained, workflow, datalist_of, tmp_path
):
    trained(bundle)
    datalist, out = datalist_of(bundle), tmp_path / "out"
    network = str(out / "models" / "model.pt")
    inference = workflow(bundle, ["inference"], "infer", ckpt_path=network, split="validation")
    inference.initialize()
    inference.run()
    items = load_datalist(datalist, "validation", datalist.parent)
    assert len(items) == 2
    for item in items:
        image = LoadImage(image_only=True)(item["image"])
        prediction = nibabel.load(prediction_path(item["image"], datalist.parent, out / "predictions"))
        assert prediction.shape == tuple(image.shape)
        np.testing.assert_allclose(prediction.affine, image.affine.numpy(), atol=1e-4)
    evaluate_predictions(datalist, datalist.parent, "validation", out / "predictions", tmp_path / "table")
    evaluation = workflow(bundle, ["train", "supervised", "evaluate"])
    evaluation.initialize()
    evaluation.run_id = "evaluating"
    evaluation.run()
    files, engine = (scores(folder / "metrics.json") for folder in (tmp_path / "table", out / "evaluation_validation"))
    assert files.keys() == engine.keys()
    if bundle != PANCREAS:  # whose training crops to the organ and whose inference does not
        assert files == pytest.approx(engine, abs=1e-3)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_found_images_are_those_of_the_release(bundle, workflow, datalist_of, tmp_path):
    datalist = datalist_of(bundle)
    parser = workflow(bundle, ["inference"], "infer", datalist=None).parser
    found = parser.get_parsed_content("found_images")
    lists = json.loads(datalist.read_text())
    images = [item["image"] for key in ("labeled", "unlabeled", "validation", "test") for item in lists[key]]
    assert sorted(found) == sorted(str(datalist.parent / image) for image in images)


def first(workflow, bundle, **overrides):
    parser = workflow(bundle, ["train"], **overrides).parser
    name = "preprocessing" if bundle == ABDOMEN else "deterministic_transforms"
    data = parser.get_parsed_content("train::dataset::data")
    return parser.get_parsed_content(f"train::{name}")(data[0])


def test_brains_are_cropped_and_their_positive_voxels_standardized(workflow):
    item = first(workflow, BRATS, patch_size=[16, 16, 16])
    image, label = item["image"], item["label"]
    assert image.shape == label.shape
    assert all(size < whole for size, whole in zip(image.shape[1:], (40, 40, 36), strict=True))
    brain = image[image != 0]
    assert abs(brain.mean()) < 0.05
    assert abs(brain.std() - 1) < 0.05
    assert label.unique().tolist() == [0, 1]
    assert image[label == 1].mean() > image[(label == 0) & (image != 0)].mean() + 0.5


def test_labels_along_other_axes_fit_their_series(workflow):
    item = first(workflow, PANCREAS, patch_size=[16, 16, 16])
    image, label = item["image"], item["label"]
    assert image.shape == label.shape
    assert 0 <= image.min() < image.max() <= 1
    # the organ was drawn at 120 HU on 20 HU, of a window from -120 to 240
    assert image[label == 1].mean() == pytest.approx(240 / 360, abs=0.05)
    assert image[label == 0].mean() == pytest.approx(140 / 360, abs=0.05)


@pytest.mark.parametrize("protocol", ["whole", "published"])
def test_a_perfect_prediction_scores_one_in_validation(protocol, workflow):
    """The way back ends along the label's axes, whichever those of the series are."""
    parser = workflow(PANCREAS, ["train"], protocol=protocol, spacing=[0.8, 0.8, 1.0], largest_component=False).parser
    preprocessing = parser.get_parsed_content("validate::preprocessing")
    item = preprocessing(parser.get_parsed_content("validate::dataset::data")[0])
    bright = (item["image"] > (70 + 120) / 360).float()
    item["pred"] = torch.cat([1 - bright, bright])
    output = parser.get_parsed_content("validate::postprocessing")(item)
    assert output["pred"].shape == output["label"].shape
    organ = output["label"][0] > 0
    agree = (output["pred"][0] > 0)[organ].float().mean()
    assert agree > 0.9


def test_the_organs_box_holds_the_labeled_organs_and_a_margin(workflow):
    parser = workflow(PANCREAS, ["train"]).parser
    start, end = parser.get_parsed_content("organ_box")
    assert all(0 <= low < 0.5 < high <= 1 for low, high in zip(start, end, strict=True))


def test_slices_of_both_orientations_are_turned_the_same_way(workflow):
    parser = workflow(ABDOMEN, ["train"]).parser
    transform = parser.get_parsed_content("train::preprocessing")
    lists = ("labeled", "monitor")
    items = [load_datalist(parser.get_parsed_content("datalist"), key, parser["dataset_dir"]) for key in lists]
    for item in (item for found in items for item in found):
        mirrored = nibabel.load(item["image"]).affine[0, 0] < 0
        centers = [float((transform(item)["label"] == value).nonzero()[:, 1].float().mean()) for value in (1, 4)]
        # the liver was drawn first along the file's x, the pancreas last
        assert (centers[0] > centers[1]) == mirrored


def test_without_validation_cases_the_last_network_is_kept(workflow, pancreas_ct, tmp_path):
    write_datalist(prepare_pancreas_ct(pancreas_ct.parent, labeled=1), tmp_path / "datalist.json")
    training = workflow(PANCREAS, ["train", "cps"], datalist=str(tmp_path / "datalist.json"))
    training.initialize()
    training.run()
    kept = torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True)
    assert all(value.equal(kept[key]) for key, value in training.trainer.network.state_dict().items())
