# SPDX-License-Identifier: Apache-2.0
"""The case that two networks disagree about most is the one to annotate next."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from metassl_monai.apps.suggest import measure_doubt, rank_cases, suggest
from metassl_monai.cli import app


@pytest.fixture
def scans(bright, tmp_path, monkeypatch):
    """A trained bundle with three unlabeled cases: none of them, half and all of the vessel is gray.

    The network calls what is brighter than 0.5 a vessel, its average what is brighter than 0.7; gray is 0.6.
    """
    items = []
    for name, gray in (("clear", 0), ("half", 4), ("doubtful", 8)):
        voxels = np.zeros((32, 32, 3), np.uint8)
        voxels[4:12, 8:16] = 100
        voxels[4 : 4 + gray, 8:16] = 60
        voxels[20:24, 20:24] = 100
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii.gz")
        items.append({"image": f"{name}.nii.gz", "subject": name, "case": name})
    bundle = bright(1, 0.7, unlabeled=items)
    config = bundle / "configs" / "train.json"
    text = config.read_text().replace('"metassl_phantom"', f'"{tmp_path}"')
    config.write_text(text.replace("$@dataset_dir + '/datalist.json'", "$@bundle_root + '/datalist.json'"))
    return bundle


def test_the_least_certain_case_comes_first(scans, tmp_path):
    out = tmp_path / "next.csv"
    result = CliRunner().invoke(app, ["suggest", str(scans), "--out", str(out), "--count", "2", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(out.open()))
    assert [row["case"] for row in rows] == ["doubtful", "half", "clear"]
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    first = {name: float(rows[0][name]) for name in ("uncertain", "suspicious", "discrepant", "entropy_nats")}
    # 64 of the 80 voxels of a plane that the network calls vessel are none for its average
    assert first["discrepant"] == pytest.approx(0.8, abs=0.05)
    assert first["uncertain"] >= max(first["suspicious"], first["discrepant"])
    assert 0 < first["entropy_nats"] < np.log(2)
    assert float(rows[2]["discrepant"]) < 0.05
    assert "clear" not in result.output
    assert (tmp_path / "next.png").read_bytes().startswith(b"\x89PNG")
    told = CliRunner().invoke(app, ["suggest", str(scans), "--count", "2", "--device", "cpu", "--json"])
    assert [row["case"] for row in json.loads(told.stdout)] == ["doubtful", "half"]


def test_the_picture_names_the_structures(scans, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("metassl_monai.apps.suggest.write_figure", lambda figure, path: drawn.append(figure))
    suggest(str(scans), tmp_path / "next.csv", device="cpu")
    ((legend,),) = (figure.legends for figure in drawn)
    assert "vessel" in {text.get_text() for text in legend.get_texts()}


def test_a_damaged_case_is_named_and_the_others_are_ranked(scans, tmp_path):
    damaged = tmp_path / "half.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    result = CliRunner().invoke(app, ["suggest", str(scans)])
    assert result.exit_code == 1
    assert f"{damaged}: cannot be read" in result.output
    assert result.output.index("doubtful") < result.output.index("clear")


def test_without_an_average_only_confidence_counts(scans):
    (scans / "models" / "model_ema.pt").unlink()
    assert {it.doubt["discrepant"] for it in rank_cases(str(scans))[0]} == {0.0}


def test_what_no_network_was_shown_is_not_uncertain():
    probabilities = torch.zeros(3, 4, 4)
    doubt, regions = measure_doubt(probabilities, probabilities)
    assert doubt == {"uncertain": 0, "suspicious": 0, "discrepant": 0, "entropy_nats": 0, "voxels": 0}
    assert regions.unique().tolist() == [255]


def test_all_annotated_leaves_nothing_to_suggest(bright, tmp_path):
    bundle = bright()
    config = bundle / "configs" / "train.json"
    text = config.read_text().replace('"metassl_phantom"', f'"{tmp_path}"')
    config.write_text(text.replace("$@dataset_dir + '/datalist.json'", "$@bundle_root + '/datalist.json'"))
    result = CliRunner().invoke(app, ["suggest", str(bundle)])
    assert result.exit_code == 1
    assert "no case is unlabeled" in result.output
