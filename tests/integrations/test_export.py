# SPDX-License-Identifier: Apache-2.0
"""``metassl export`` hands a trained bundle on."""

from __future__ import annotations

import json

import pytest
import torch
from monai.bundle import ConfigParser
from typer.testing import CliRunner

from metassl_monai.bundle.locate import copy_bundle
from metassl_monai.cli import app

FEATURES = [4, 8, 16, 32, 64]


def metassl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def trained(tmp_path):
    bundle = copy_bundle("phantom_segmentation", tmp_path)
    file = bundle / "configs" / "inference.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"features": FEATURES}))
    parser = ConfigParser()
    parser.read_config(file)
    network = parser.get_parsed_content("network_def").eval()
    (bundle / "models").mkdir()
    torch.save(network.state_dict(), bundle / "models" / "model.pt")
    (bundle / "models" / "checkpoint.pt").write_bytes(b"of the training")
    (bundle / "datalist.json").write_text("{}")
    return bundle, network


def test_an_exported_program_holds_the_trained_weights(trained, tmp_path):
    bundle, network = trained
    result = metassl("export", bundle, "--format", "pt2", "--out", tmp_path / "model.pt2")
    assert result.exit_code == 0, result.output
    image = torch.rand(1, 1, 32, 48)
    torch.testing.assert_close(torch.export.load(tmp_path / "model.pt2").module()(image), network(image))


def test_a_repository_for_hugging_face_has_a_valid_card_and_runs(trained, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    bundle, _ = trained
    result = metassl("export", bundle, "--format", "huggingface", "--out", tmp_path / "repository")
    assert result.exit_code == 0, result.output
    card = hub.ModelCard.load(tmp_path / "repository" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "monai"
    assert card.data.pipeline_tag == "image-segmentation"
    assert "1 right ventricle" in card.text
    files = {path.relative_to(tmp_path / "repository").as_posix() for path in (tmp_path / "repository").rglob("*.*")}
    assert {"configs/inference.json", "configs/metadata.json", "models/model.pt", "README.md"} <= files
    # what is of the training and of its patients stays at home
    assert not {"models/checkpoint.pt", "datalist.json"} & files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "tflite"], "is none: choose of onnx, pt2, huggingface"),
        (["--format", "onnx", "--checkpoint", "absent.pt"], "no network at absent.pt"),
    ],
    ids=["format", "checkpoint"],
)
def test_a_mistake_is_one_message(arguments, message, trained, tmp_path):
    result = metassl("export", trained[0], "--out", tmp_path / "file", *arguments)
    assert result.exit_code == 1
    assert message in str(result.exception)
    assert not (tmp_path / "file").exists()
