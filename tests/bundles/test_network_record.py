# SPDX-License-Identifier: Apache-2.0
"""A network says in which orientation it was trained, so that no one has to name it again."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from metassl_monai.bundle.locate import bundle_names
from metassl_monai.network_record import made_with

PHANTOM = "phantom_segmentation"


@pytest.fixture
def trained(own_copy, workflow, refusal, tmp_path):
    """Train the phantom for an iteration in an orientation that only its datalist names."""
    path = own_copy(PHANTOM)
    path.write_text(json.dumps({**json.loads(path.read_text()), "orientation": "ASL"}))
    where = {"dataset_dir": str(path.parent), "datalist": str(path), "output_dir": str(tmp_path / "trained")}
    assert refusal(workflow(PHANTOM, ["train", "supervised"], **where, keep="last"), "training") is None
    return path


@pytest.fixture
def probabilities(trained, workflow, refusal, tmp_path):
    """Segment the validation case and return its probabilities."""

    def segment(name, network="model.pt", **ids):
        (item,) = json.loads(trained.read_text())["validation"][:1]
        where = {"dataset_dir": str(trained.parent), "output_dir": str(tmp_path / name)}
        ids = {"image_pattern": item["image"], "ckpt_path": str(tmp_path / "trained" / "models" / network), **ids}
        inference = workflow(PHANTOM, ["inference"], "infer", **where, save_probabilities=True, **ids)
        assert refusal(inference) is None
        (file,) = (tmp_path / name).rglob(f"{Path(item['image']).name.removesuffix('.nii.gz')}_probabilities*.nii.gz")
        return np.asarray(nibabel.load(file).dataobj)

    return segment


def test_images_without_a_datalist_are_segmented_in_the_orientation_of_the_training(trained, probabilities, tmp_path):
    named = probabilities("named", datalist=str(trained))
    assert np.array_equal(probabilities("found", datalist=None), named)
    (tmp_path / "trained" / "models" / "model.json").unlink()
    assert not np.allclose(probabilities("unknown", datalist=None), named, atol=1e-3)


def test_every_network_of_a_run_has_its_record(trained, tmp_path):
    for name in ("model", "model_ema"):
        record = made_with(tmp_path / "trained" / "models" / f"{name}.pt")
        assert record["orientation"] == "ASL"
        assert record["labels"]["0"] == "background"


@pytest.mark.parametrize("bundle", [name for name in bundle_names() if "pathology" not in name])
def test_the_network_names_the_orientation_for_inference_and_evaluation(bundle, workflow, tmp_path):
    from metassl_monai.network_record import write_record

    network = tmp_path / "model.pt"
    network.write_bytes(b"weights")
    write_record(network, b"weights", {"orientation": "PIR"})
    for names, kind in ((["inference"], "infer"), (["train", "evaluate"], "train")):
        parser = workflow(bundle, names, kind, ckpt_path=str(network)).parser
        assert parser.get_parsed_content("orientation") == "PIR"
