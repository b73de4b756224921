# SPDX-License-Identifier: Apache-2.0
"""MONAI Deploy's operator runs a bundle on images that it has loaded itself, and writes the result itself."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform

from metassl_monai.bundle.locate import bundle_names, bundle_path, copy_bundle
from metassl_monai.data import read_scan

TINY = {"features": [4, 8, 16, 32, 64], "device": "$torch.device('cpu')"}


def inference(bundle, **ids) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({**TINY, **ids})
    return parser


def without_files(compose: Compose) -> Compose:
    """Leave out transforms as ``filter_compose`` of the operator does: by the names of their classes."""
    words = ("LoadImage", "SaveImage")
    kept = [each for each in compose.transforms if not any(word in type(each).__name__ for word in words)]
    compose.transforms = tuple(kept)
    return compose


@pytest.mark.parametrize("bundle", bundle_names())
def test_nothing_that_reads_or_writes_a_file_is_left_for_the_operator(bundle):
    parser = inference(bundle_path(bundle), ckpt_path="no network")
    before = without_files(parser.get_parsed_content("preprocessing"))
    # it asks the first transform whether all of them take dictionaries
    assert isinstance(before.transforms[0], MapTransform)
    after = without_files(parser.get_parsed_content("postprocessing"))
    assert isinstance(after.transforms[0], MapTransform)
    assert not any("Save" in type(each).__name__ for each in after.transforms)


def segmented_by_the_bundle(folder, image) -> np.ndarray:
    ids = {"dataset_dir": str(image.parent), "ckpt_path": str(folder / "models" / "model.pt")}
    parser = inference(folder, **ids, image_pattern=image.name, output_dir=str(folder / "out"))
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    return evaluator.state.output[0]["pred"].numpy()[0]


def test_an_image_that_is_loaded_already_gives_the_prediction_of_its_file(phantom, tmp_path):
    folder = copy_bundle("phantom_segmentation", tmp_path)
    item = json.loads(phantom.read_text())["validation"][0]
    image = phantom.parent / item["image"]
    parser = inference(folder)
    network = parser.get_parsed_content("network_def").eval()
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    before = without_files(parser.get_parsed_content("preprocessing"))
    after = without_files(parser.get_parsed_content("postprocessing"))
    scan = read_scan(image)
    value = MetaTensor(scan.as_tensor(), affine=scan.affine, meta={"original_channel_dim": "no_channel"})
    with torch.no_grad():
        inputs = before({"image": value})
        logits = parser.get_parsed_content("inferer")(inputs=inputs["image"][None], network=network)
    prediction = after({"pred": logits[0], **inputs})["pred"]
    assert np.array_equal(prediction.numpy()[0], segmented_by_the_bundle(folder, image))


def test_the_operator_of_deploy_gives_the_prediction_of_the_bundle(phantom, tmp_path, monkeypatch):
    pytest.importorskip("holoscan", reason="MONAI Deploy needs Holoscan")
    pytest.importorskip("monai.deploy", reason="MONAI Deploy is not installed")
    operators = importlib.import_module("monai.deploy.operators.monai_bundle_inference_operator")
    folder = copy_bundle("phantom_segmentation", tmp_path)
    for name in ("inference",):
        file = folder / "configs" / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | TINY))
    monkeypatch.chdir(folder)
    parser = inference(folder)
    (folder / "models").mkdir()
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "models" / "model.pt")
    config = operators.get_bundle_config(str(folder), ["inference"])
    before = operators.filter_compose(config.get_parsed_content("preprocessing"), operators.DISALLOW_LOAD_SAVE)
    after = operators.filter_compose(config.get_parsed_content("postprocessing"), operators.DISALLOW_LOAD_SAVE)
    network = operators._load_model_from_directory_bundle(folder, torch.device("cpu"), config)
    image = phantom.parent / json.loads(phantom.read_text())["validation"][0]["image"]
    scan = read_scan(image)
    assert operators.is_map_compose(before)
    inputs = before({"image": MetaTensor.ensure_torch_and_prune_meta(scan.as_tensor(), dict(scan.meta))})
    with torch.no_grad():
        logits = config.get_parsed_content("inferer")(inputs=inputs["image"][None], network=network)
    prediction = after({"pred": logits[0], **inputs})["pred"]
    assert np.array_equal(prediction.numpy()[0], segmented_by_the_bundle(folder, image))
