# SPDX-License-Identifier: Apache-2.0
"""What the pathology bundle has and the others have not: colors, tiles, pictures in and out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from metassl_monai.apps.evaluate import evaluate_predictions
from metassl_monai.bundle.locate import bundle_path
from metassl_monai.data import load_datalist, prediction_path

DIGESTPATH = "digestpath_pathology_segmentation"
PIXELWISE = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 2, "kernel_size": 1}


@pytest.fixture
def dark_is_tumor(tmp_path):
    """Weights of `PIXELWISE` that call tumor what is darker than 0.55, as the drawn tumors are and nothing else is."""
    network = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([20.0, -20.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
        network.bias.copy_(torch.tensor([-33.0, 33.0]))
    torch.save(network.state_dict(), tmp_path / "dark.pt")
    return str(tmp_path / "dark.pt")


@pytest.fixture
def infer(workflow, dark_is_tumor, tmp_path):
    """Segment with known weights and return the folder of the predictions."""

    def run(**overrides):
        overrides = {"network_def": PIXELWISE, "ckpt_path": dark_is_tumor, "split": "validation", **overrides}
        inference = workflow(DIGESTPATH, ["inference"], "infer", **overrides)
        inference.initialize()
        inference.run()
        return tmp_path / "out" / "predictions"

    return run


def pixels(file):
    """An image as any other program sees it: rows first."""
    return np.asarray(Image.open(file))


def test_predictions_lie_on_their_images(infer, digestpath, tmp_path):
    predictions = infer()
    items = load_datalist(digestpath, "validation", digestpath.parent)
    assert items
    for item in items:
        image = pixels(item["image"])
        prediction = pixels(prediction_path(item["image"], digestpath.parent, predictions))
        assert prediction.shape == image.shape[:2]
        np.testing.assert_array_equal(prediction, image.mean(axis=2) < 255 * 0.55)
    rows = evaluate_predictions(digestpath, digestpath.parent, "validation", predictions, tmp_path / "table")
    for row in rows:
        assert row["dice"] > 0.9
        assert row["jaccard"] == pytest.approx(row["dice"] / (2 - row["dice"]))
        assert row["hd95_voxel"] <= 2
        assert np.isnan(row["hd95_mm"])


@pytest.mark.parametrize("size", [(20, 90), (90, 20), (10, 12), (64, 64)])
def test_pictures_of_any_shape_and_kind_are_segmented(size, infer, digestpath, tmp_path):
    """Smaller than a tile, or not a multiple of it; PNG with an alpha channel."""
    item = load_datalist(digestpath, "test", digestpath.parent)[0]
    file = tmp_path / "pictures" / "sub folder" / "a picture 1.png"
    file.parent.mkdir(parents=True)
    Image.open(item["image"]).resize(size).convert("RGBA").save(file)
    predictions = infer(dataset_dir=str(file.parents[1]), datalist=None, image_pattern="**/*.png")
    prediction = pixels(predictions / "sub folder" / "a picture 1_seg.png")
    np.testing.assert_array_equal(prediction, pixels(file)[..., :3].mean(axis=2) < 255 * 0.55)


def test_without_a_datalist_images_are_found_and_masks_are_not(infer, digestpath):
    predictions = infer(datalist=None)
    images = [file for file in digestpath.parent.rglob("*.jpg") if not file.stem.endswith("_mask")]
    found = {file.relative_to(predictions).as_posix() for file in predictions.rglob("*.png")}
    expected = {file.relative_to(digestpath.parent).with_name(f"{file.stem}_seg.png").as_posix() for file in images}
    assert found == expected


def test_probabilities_and_entropy_are_gray_values(infer, digestpath):
    predictions = infer(save_probabilities=True, save_uncertainty=True)
    for file in predictions.rglob("*_seg.png"):
        tumor = pixels(file) == 1
        probability, entropy = (
            pixels(file.with_name(file.name.replace("_seg", f"_{name}"))) for name in ("probabilities", "uncertainty")
        )
        assert probability.dtype == entropy.dtype == np.uint8
        assert (probability[tumor] >= 127).all()
        assert (probability[~tumor] <= 128).all()
        p = probability.astype(float).clip(0.5, 254.5) / 255
        expected = -255 * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
        middle = (probability > 20) & (probability < 235)
        np.testing.assert_allclose(entropy[middle], expected[middle], atol=6)


def test_images_above_the_limit_of_pillow_are_segmented(infer, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert list(infer().rglob("*.png"))


@pytest.mark.parametrize("method", [[], ["cps", "digestpath_small"]])
def test_from_training_to_the_table(method, workflow, digestpath, tmp_path):
    """Both ways to evaluate say the same."""
    small = {} if not method else {"spatial_size": [32, 32], "features": [4, 8, 16, 32, 64]}
    training = workflow(DIGESTPATH, ["train", *method], **small)
    training.initialize()
    training.run()
    network = str(tmp_path / "out" / "models" / "model.pt")
    evaluation = workflow(DIGESTPATH, ["train", *method, "evaluate"], run_id="evaluating")
    evaluation.initialize()
    evaluation.run_id = "evaluating"
    evaluation.run()
    table = json.loads((tmp_path / "out" / "evaluation_validation" / "metrics.json").read_text())["cases"]
    inference = workflow(DIGESTPATH, ["inference"], "infer", ckpt_path=network, split="validation")
    inference.initialize()
    inference.run()
    rows = evaluate_predictions(
        digestpath, digestpath.parent, "validation", tmp_path / "out" / "predictions", tmp_path / "table"
    )
    assert {row["structure"] for row in rows} == {"tumor", "mean"}
    for one, other in zip(table, rows, strict=True):
        assert one["hd95_mm"] is None or np.isnan(one["hd95_mm"])
        for key in ("case", "subject", "structure"):
            assert one[key] == other[key]
        for key in ("dice", "jaccard", "hd95_voxel"):
            assert one[key] == pytest.approx(other[key], nan_ok=True)


def test_training_sees_the_tiles_with_tissue(workflow):
    training = workflow(DIGESTPATH, ["train"])
    training.initialize()
    batch = next(iter(training.trainer.data_loader))
    for stream in ("labeled", "unlabeled"):
        image = batch[stream]["image"]
        assert image.shape == (2, 3, 32, 32)
        assert 0.2 < image.min() < image.max() <= 1
        assert ((image.amin(dim=1) < 220 / 255).flatten(1).float().mean(dim=1) >= 0.1).all()
    assert set(batch["labeled"]["label"].unique().tolist()) <= {0.0, 1.0}
    assert "label" not in batch["unlabeled"]


def test_weights_of_the_network_are_as_many_as_documented(workflow):
    network = workflow(DIGESTPATH, ["inference"], "infer", features=[16, 32, 64, 128, 256]).parser
    count = sum(p.numel() for p in network.get_parsed_content("network_def").parameters())
    assert count == 1_813_762
    assert f"{count:,}" in (bundle_path(DIGESTPATH) / "docs" / "README.md").read_text()


def test_a_damaged_image_is_named(workflow, refusal, digestpath, tmp_path):
    copy = shutil.copytree(digestpath.parent, tmp_path / "data")
    image = copy / json.loads(digestpath.read_text())["validation"][0]["image"]
    image.write_bytes(image.read_bytes()[:-200])
    training = workflow(DIGESTPATH, ["train"], dataset_dir=str(copy), datalist=str(copy / "datalist.json"))
    assert "cannot be read to its end" in refusal(training)
