# SPDX-License-Identifier: Apache-2.0
"""A network has one score on a case, whoever asks: validation in training, evaluation, or inference and its files."""

from __future__ import annotations

import json

import pytest

from metassl_monai.apps.evaluate import evaluate_predictions
from metassl_monai.bundle.locate import bundle_names
from metassl_monai.data import prepare_la, prepare_pancreas_ct, write_datalist
from metassl_monai.files import nan_for_null
from metassl_monai.report import read_history, summarize

LA, PANCREAS = "la_atrium_mri_segmentation", "pancreas_ct_segmentation"
CROPPED = (LA, PANCREAS)
"""Data sets whose published results are those of cropped volumes."""

VOLUMES = (*CROPPED, "brats2019_mri_segmentation")


def rough(bundle):
    """A network that finds structures all over an image, so that it matters where it looks."""
    channels = 3 if bundle == "digestpath_pathology_segmentation" else 1
    layer = {"_target_": f"torch.nn.Conv{3 if bundle in VOLUMES else 2}d", "kernel_size": 3, "padding": 1}
    return {"network_def": {**layer, "in_channels": channels, "out_channels": "@num_classes"}}


@pytest.fixture(scope="module")
def la(tmp_path_factory, write_la):
    """A release whose volumes are larger than the published box of their annotations; read only."""
    folder = tmp_path_factory.mktemp("la") / "data"
    cases = ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "1D7CUD1955YZPGK8XHJX", "1GU15S0GJ6PFNARO469W"]
    write_la(folder, cases, shape=(96, 92, 32))
    write_datalist(prepare_la(folder, labeled=1, validation=2), folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture(scope="module")
def pancreas_ct(tmp_path_factory, write_pancreas_ct):
    """The same of Pancreas-CT, whose labels are stored along other axes."""
    folder = write_pancreas_ct(tmp_path_factory.mktemp("pancreas") / "data", [1, 2, 3, 4], (116, 110, 24), "RAS")
    write_datalist(prepare_pancreas_ct(folder, labeled=1, validation=2), folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture
def roads(workflow, datalist_of, tmp_path):
    """Train for a moment and score the network that is kept in all three ways: mean Dice a structure."""

    def run(bundle, overlays=(), network_of_inference=(), ids=None, **protocols):
        def finish(names, kind="train", run_id="run", **more):
            flow = workflow(bundle, names, kind, run_id=run_id, **{**(ids or {}), **more})
            flow.initialize()
            flow.run()

        given = {road: {"protocol": protocol} for road, protocol in protocols.items()}
        finish(["train", *overlays], keep="last", **given.get("training", {}))
        finish(["train", *overlays, "evaluate"], run_id="evaluating", **given.get("evaluation", {}))
        network = str(tmp_path / "out" / "models" / "model.pt")
        names = ["inference", *network_of_inference]
        finish(names, "infer", "inference", ckpt_path=network, split="validation", **given.get("inference", {}))
        return _scores(datalist_of(bundle), tmp_path)

    return run


def _scores(datalist, folder):
    history = read_history(folder / "out" / "history.csv")
    table = (folder / "out" / "evaluation_validation" / "metrics.json").read_text()
    stored = nan_for_null(json.loads(table)["cases"])
    predictions = folder / "out" / "predictions"
    files = evaluate_predictions(datalist, datalist.parent, "validation", predictions, folder / "table")
    scores = {"evaluation": _means(stored), "inference": _means(files)}
    columns = {name: f"val_dice/{name.replace(' ', '_')}" for name in scores["inference"]} | {"mean": "val_mean_dice"}
    return {"training": {name: history[column][-1] for name, column in columns.items()}, **scores}


def _means(rows):
    return {row["structure"]: row["mean"] for row in summarize(rows) if row["metric"] == "dice"}


@pytest.mark.parametrize("bundle", bundle_names())
def test_all_roads_end_at_the_same_score(bundle, roads):
    scores = roads(bundle, ["supervised"], ids=rough(bundle))
    assert 0 < scores["training"]["mean"] < 1
    for road in ("evaluation", "inference"):
        assert scores[road] == pytest.approx(scores["training"], abs=1e-5), road


@pytest.mark.parametrize(
    ("bundle", "inference"),
    [("phantom_segmentation", "mean_of_two"), (LA, "dualnet_inference"), (PANCREAS, "dualnet_inference")],
)
def test_a_method_of_two_networks_has_one_score(bundle, inference, roads):
    scores = roads(bundle, ["dualnet"], [inference])
    for road in ("evaluation", "inference"):
        assert scores[road] == pytest.approx(scores["training"], abs=1e-5), road


@pytest.mark.parametrize("bundle", CROPPED)
def test_all_roads_take_the_published_crop_alike(bundle, roads):
    protocols = dict.fromkeys(("training", "evaluation", "inference"), "published")
    scores = roads(bundle, ["supervised"], ids=rough(bundle), **protocols)
    for road in ("evaluation", "inference"):
        assert scores[road] == pytest.approx(scores["training"], abs=1e-5), road


@pytest.mark.parametrize("changed", ["training", "evaluation", "inference"])
@pytest.mark.parametrize("bundle", CROPPED)
def test_one_road_changed_alone_is_seen(bundle, changed, roads):
    """What shows that the crop matters to these networks, and that the tests above would find it."""
    scores = roads(bundle, ["supervised"], ids=rough(bundle), **{changed: "published"})
    same = [road for road in scores if road != changed]
    assert scores[same[0]] == pytest.approx(scores[same[1]], abs=1e-5)
    assert scores[changed] != pytest.approx(scores[same[0]], abs=1e-3)


def test_a_protocol_that_is_none_is_refused(workflow, refusal):
    assert "--protocol legacy: choose whole or published" in refusal(workflow(LA, ["train"], protocol="legacy"))
