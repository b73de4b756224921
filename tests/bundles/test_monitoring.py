# SPDX-License-Identifier: Apache-2.0
"""What the paper looks at, through the bundles' own files, on the tiny phantom."""

from __future__ import annotations

import json
import math

import pytest
import torch

from metassl_monai.bundle.locate import bundle_names, bundle_path
from metassl_monai.report import read_history

METHODS = ("cps", "mean_teacher", "fixmatch", "rdrop", "cct", "bcp")
UNLIKE = ("cps", "cct", "bcp")
"""Those whose streams differ most: two networks, several decoders, two streams in one image."""
PHANTOM = "phantom_segmentation"
SLICES = ("abdomenct1k_ct_segmentation", "acdc_cardiac_mri_segmentation", PHANTOM)
"""The bundles that train on slices."""


@pytest.fixture
def train(workflow, tmp_path):
    """Train by some configs and return the trainer and the folder of its outputs."""

    def run(names, bundle=PHANTOM, **overrides):
        folder = tmp_path / "_".join(names)
        overrides = {"picture_interval": 1, **overrides}
        training = workflow(bundle, ["train", *names], output_dir=str(folder), **overrides)
        training.initialize()
        training.run()
        return training.trainer, folder

    return run


def checkpoint(folder):
    return torch.load(folder / "models" / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize(("overlay", "bundles"), [("monitor", bundle_names()), ("hidden_labels", SLICES)])
def test_the_overlays_are_the_same_in_all_bundles(overlay, bundles):
    (text,) = {(bundle_path(bundle) / "configs" / f"{overlay}.json").read_text() for bundle in bundles}
    assert "'test'" not in text


@pytest.mark.parametrize("method", METHODS)
def test_monitored_training_equals_plain_training_bit_for_bit(method, train):
    _, plain = train([method, "plain"])
    trainer, watched = train([method, "monitor"])
    before, after = checkpoint(plain)["method"], checkpoint(watched)["method"]
    for key, value in before.items():
        assert torch.equal(value, after[key]), key
    thresholds = [value for key, value in after.items() if key.endswith("partition.threshold.values")]
    assert any((value != 0.5).any() for value in thresholds)
    metrics = trainer.state.metrics
    assert {"regions", "pixels", "threshold"} <= {key.split("/")[0] for key in metrics}
    assert (watched / "pictures" / "counts.png").is_file()
    assert (watched / "pictures" / "thresholds.png").is_file()
    assert not (plain / "pictures" / "counts.png").exists()


@pytest.mark.parametrize("method", [m if m in UNLIKE else pytest.param(m, marks=pytest.mark.slow) for m in METHODS])
def test_hidden_labels_and_pictures_change_nothing_in_the_training(method, train):
    _, blind = train([method], picture_interval=1000)  # the last epoch alone
    trainer, seeing = train([method, "hidden_labels"])
    without, with_them = checkpoint(blind), checkpoint(seeing)
    for key, value in without["method"].items():
        assert torch.equal(value, with_them["method"][key]), key
    assert with_them["evaluator"] == without["evaluator"]
    pairs = {key.split("/")[1] for key in trainer.state.metrics if key.startswith("hidden/")}
    assert pairs == set(trainer.unwrapped_method.names["unlabeled"])
    for name in ("monitored", "unlabeled"):
        drawn = {folder: (folder / "pictures" / f"{name}_0001.png").is_file() for folder in (seeing, blind)}
        assert drawn == {seeing: True, blind: False}


@pytest.mark.parametrize("bundle", bundle_names())
def test_monitor_and_hidden_labels_together_write_metrics_and_pictures(bundle, train):
    _, folder = train(["cps", "monitor", "hidden_labels"], bundle)
    history = read_history(folder / "history.csv")
    assert history["epoch"] == [1, 2]
    for name in (
        "loss",
        "val_mean_dice",
        "regions/unlabeled/network/UC",
        "pixels/unlabeled/second_network/DS",
        "threshold/labeled/network/1",
        "hidden/network/pixels_foreground/US",
    ):
        assert name in history, name
    for prefix in ("hidden/network/accuracy/", "hidden/second_network/dice/"):
        assert any(name.startswith(prefix) for name in history), prefix
    validated = [n for n, dice in zip((1, 2), history["val_mean_dice"], strict=True) if not math.isnan(dice)]
    assert 2 in validated
    assert {file.name for file in (folder / "pictures").iterdir()} == {
        "accuracy.png",
        "counts.png",
        "epoch_0001.png",
        "epoch_0002.png",
        "learning_rate.png",
        "losses.png",
        "pseudo_labels.png",
        "thresholds.png",
        *(f"{name}_{end}.png" for name in ("monitored", "unlabeled") for end in ("0001", "0002", "over_training")),
        "validation_dice.png",
        *(f"validation_{epoch:04d}.png" for epoch in validated),
    }


def test_the_preset_that_watches_can_be_chosen(train):
    trainer, _ = train(["monitor"], watched_preset="ref_cps2d")
    loss = trainer.unwrapped_method.unlabeled_losses["network"]
    assert loss.metassl.normalization == "region"


def test_monitored_images_are_as_many_as_the_datalist_hides(train, phantom):
    trainer, _ = train(["hidden_labels"])
    slices = 3 * len(json.loads(phantom.read_text())["monitor"])
    counts = [trainer.state.metrics[f"hidden/network/pixels/{region}"] for region in ("UC", "US", "DC", "DS")]
    assert sum(counts) == slices * 32 * 32


def test_a_resumed_run_has_the_history_of_the_uninterrupted_one(train):
    names, whole = ["hidden_labels"], {"iterations": 4, "lr_scheduler::total_iters": 4}
    _, folder = train(names, **whole)
    expected = (folder / "history.csv").read_text()
    train(names, **whole, epochs=2, overwrite=True)
    assert len((folder / "history.csv").read_text().splitlines()) == 3
    train(names, **whole, resume=True)
    assert (folder / "history.csv").read_text() == expected
