# SPDX-License-Identifier: Apache-2.0
"""Pictures of an experiment show what its networks really segment, and cost nothing twice."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage
from typer.testing import CliRunner

from metassl_monai.bundle import UserError, locate
from metassl_monai.cli import app
from metassl_monai.data import read_datalist
from metassl_monai.experiments import pictures
from metassl_monai.experiments.definition import read_experiment
from metassl_monai.experiments.pictures import draw_pictures
from metassl_monai.report import methods_figure

CASES = ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "1D7CUD1955YZPGK8XHJX", "1GU15S0GJ6PFNARO469W"]
CML = {"method": "cml", "preset": "plain"}
TINY = {
    "title": "Tiny",
    "about": "Two runs of one iteration.",
    "bundle": "la_atrium_mri_segmentation",
    "reader": "la",
    "prepare": {"validation": 2},
    "labeled": [1],
    "subsets": [0],
    "seeds": [7],
    "split": "validation",
    "checkpoint": "last",
    "overlays": ["la_small"],
    "overrides": {
        "features": [4, 8, 16, 32, 64],
        "patch_size": [32, 32, 32],
        "overlap": 0.0,
        "iterations": 1,
        "metassl_losses::beta": 2,
        "check_data": False,
        "device": "$torch.device('cpu')",
    },
    "rows": [{"method": "supervised", "preset": "plain"}, {"method": "supervised", "preset": "paper"}],
}
PICTURE = "tiny_1_0_7_cases.png"


def write(folder, **changes):
    file = folder / "tiny.json"
    file.write_text(json.dumps({**TINY, **changes}))
    return file


@pytest.fixture(scope="module")
def ran(tmp_path_factory, write_la):
    """The tiny experiment with pictures, run for real; the folder and what the figure was made of."""
    folder = tmp_path_factory.mktemp("pictures")
    write_la(folder / "data", CASES, shape=(36, 34, 32))
    arguments = ["experiment", write(folder), "--dataset-dir", folder / "data", "--out", folder / "out"]
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "methods_figure", lambda *a: drawn.append(a) or methods_figure(*a))
        for more in ([], ["--pictures", "2"]):
            if more:
                scatter(folder / "out" / "tiny")
            result = CliRunner().invoke(app, [str(argument) for argument in (*arguments, *more)])
            assert result.exit_code == 0, result.output
    return folder, drawn


def scatter(runs):
    """Give each network weights of its own that segment at random: after one iteration they segment nothing."""
    for seed, file in enumerate(sorted(runs.glob("*/models/model.pt"))):
        generator, state = torch.Generator().manual_seed(seed), torch.load(file, weights_only=True)
        draw = {name: torch.randn(value.shape, generator=generator) for name, value in state.items() if value.ndim > 1}
        torch.save({**state, **draw}, file)


@pytest.fixture
def copied(ran, tmp_path):
    """A copy of the folder, to change."""
    return shutil.copytree(ran[0], tmp_path / "copy")


def draw(folder, cells=None, count=2, out="out"):
    cells = cells or read_experiment(folder / "tiny.json")
    draw_pictures(cells, folder / "data", folder / out, folder / "out" / "results", count)


def test_the_panels_are_the_predictions_on_disk_where_most_is_annotated(ran):
    folder, [(images, maps, rows, title, labels)] = ran
    assert labels["1"] == "left atrium"
    assert list(maps) == ["annotation", "supervised-plain", "supervised-paper"]
    assert title == "tiny: 1 labeled, subset 0, seed 7"
    items = read_datalist(folder / "out" / "tiny" / "supervised-plain_1_0_7" / "datalist.json")["validation"]
    assert list(rows) == [item["case"] for item in items]
    load = LoadImage(image_only=True)
    for number, item in enumerate(items):
        truth = load(folder / "data" / item["label"]).numpy() == 255
        place = max(range(truth.shape[-1]), key=lambda z, truth=truth: truth[..., z].sum())
        assert 0 < place < truth.shape[-1] - 1
        assert np.array_equal(images[number], load(folder / "data" / item["image"]).numpy()[..., place])
        assert np.array_equal(maps["annotation"][number], truth[..., place])
        for row in ("supervised-plain", "supervised-paper"):
            file = folder / "out" / "tiny" / f"{row}_1_0_7" / "predictions" / item["case"] / "lgemri_seg.nii.gz"
            prediction = np.asarray(nibabel.load(file).dataobj)
            assert prediction.shape == truth.shape
            assert np.array_equal(maps[row][number], prediction[..., place])
        assert not np.array_equal(maps["supervised-plain"][number], maps["supervised-paper"][number])


def test_the_page_shows_the_picture(ran):
    folder, _ = ran
    page = (folder / "out" / "results.md").read_text()
    assert f"](results/{PICTURE})" in page
    assert (folder / "out" / "results" / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_a_second_time_nothing_runs_until_a_network_is_trained_anew(copied, monkeypatch):
    picture = copied / "out" / "results" / PICTURE
    before = picture.read_bytes()
    commands = []
    monkeypatch.setattr(locate, "run_command", commands.append)
    draw(copied)
    assert commands == []
    assert picture.read_bytes() == before
    network = copied / "out" / "tiny" / "supervised-paper_1_0_7" / "models" / "model.pt"
    os.utime(network)
    draw(copied)
    assert [command[command.index("--ckpt_path") + 1] for command in commands] == [str(network)]


def test_the_inference_has_the_sizes_of_the_experiment_and_nothing_of_the_training(ran, tmp_path):
    folder, _ = ran
    overrides = json.loads(
        (folder / "out" / "tiny" / "supervised-plain_1_0_7" / "inference_overrides.json").read_text()
    )
    assert overrides == {
        key: TINY["overrides"][key] for key in ("features", "patch_size", "overlap", "check_data", "device")
    }
    cell, cml = read_experiment(
        write(tmp_path, rows=[TINY["rows"][0], CML], methods={"cml": {"inference": ["mean_of_two"]}})
    )
    assert [file.stem for file in cell.inference_configs()] == ["inference", "la_small"]
    assert [file.stem for file in cml.inference_configs()] == ["inference", "la_small", "mean_of_two"]
    assert "inference" not in cml.settings()


def test_a_result_copied_from_another_experiment_is_drawn_with_that_ones_network(copied, monkeypatch):
    monkeypatch.setattr(locate, "run_command", lambda command: pytest.fail("it ran"))
    draw(copied, [replace(cell, experiment="again") for cell in read_experiment(copied / "tiny.json")], count=1)
    assert (copied / "out" / "results" / "again_1_0_7_cases.png").is_file()


def test_missing_networks_and_an_empty_split_are_one_message(copied):
    with pytest.raises(UserError, match=r"are missing(.|\n)*plain_1_0_7(.|\n)*paper_1_0_7(.|\n)*Give the --out"):
        draw(copied, out="nowhere")
    empty = [replace(cell, split="test") for cell in read_experiment(copied / "tiny.json")]
    with pytest.raises(UserError, match=r"datalist\.json: its list 'test' is empty: name another split"):
        draw(copied, empty)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"inference": ["mean_of_too"]}, "has no config 'mean_of_too'"),
        ({"inferences": []}, "the method 'cml' has an unknown 'inferences'"),
    ],
)
def test_a_faulty_section_of_a_method_is_one_message(tmp_path, section, message):
    with pytest.raises(UserError, match=message):
        read_experiment(write(tmp_path, rows=[CML], methods={"cml": section}))
