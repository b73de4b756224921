# SPDX-License-Identifier: Apache-2.0
"""The page of a bundle is one valid HTML file that tells what was decided, trained and reached."""

from __future__ import annotations

import base64
import csv
import itertools
import json
import math
import os
import re
import shutil
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from metassl_monai.apps import page
from metassl_monai.apps.pages import cases, scores
from metassl_monai.bundle.locate import bundle_path
from metassl_monai.cli import app
from metassl_monai.data import make_phantom
from metassl_monai.report import case_rows, overlay_figure, write_case_table

from .page_reader import PageReader, contrast


def read(file):
    """Read a page, held to what HTML, a printer, a phone and a screen reader demand of it."""
    text = file.read_text(encoding="utf-8")
    reader = PageReader(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe"} & set(reader.seen)
    assert "http" not in text
    assert reader.problems() == []
    for link in reader.links:
        assert link.startswith("#") or (file.parent / unquote(link)).is_file(), link
    for picture in reader.pictures:
        kind, _, content = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
    return reader


@pytest.fixture
def trained(tmp_path):
    """A bundle as a training leaves it, without the training."""
    import numpy as np

    bundle = tmp_path / "my heart"
    shutil.copytree(bundle_path("phantom_segmentation"), bundle)
    decisions = [{"name": "patch_size", "value": [96, 96], "reason": "slices are <thick> & few"}]
    (bundle / "plan.json").write_text(json.dumps({"decisions": decisions, "fingerprint": {}}))
    lists = {key: [] for key in ("labeled", "unlabeled", "validation", "test", "monitor")}
    cases = [{"image": f"{i}.png", "label": f"{i}_l.png", "subject": "one", "case": str(i)} for i in range(2)]
    labels = {"0": "background", "1": "aorta"}
    (bundle / "datalist.json").write_text(json.dumps({"labels": labels, **lists, "labeled": cases}))
    config = json.loads((bundle / "configs" / "train.json").read_text())
    config |= {"iterations": 40, "device": "$torch.device('cpu')", "datalist": str(bundle / "datalist.json")}
    (bundle / "config_20260101_000000.json").write_text(json.dumps(config))
    history = (
        "epoch,iteration,loss,loss/labeled/network,val_mean_dice,val_dice/aorta\n1,20,2.5,1.5,,\n2,40,1.5,1,0.71,0.71\n"
    )
    (bundle / "history.csv").write_text(history)
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").write_bytes(b"weights")
    (bundle / "pictures").mkdir()
    zeros = [np.zeros((4, 4))]
    for epoch in (1, 2):
        overlay_figure(zeros, zeros, zeros).savefig(bundle / "pictures" / f"epoch_{epoch:04d}.png")
    metrics = {"dice": 0.8125, "hd95_mm": 3.5}
    rows = [row for case in ("a", "b") for row in case_rows(case, case, {"aorta": metrics})]
    write_case_table(rows, bundle / "evaluation_validation")
    return bundle


def test_a_page_tells_what_was_decided_trained_and_reached(trained):
    result = CliRunner().invoke(app, ["report", str(trained)])
    assert result.exit_code == 0, result.output
    reader = read(trained / "report.html")
    cells = reader.cells
    start = cells.index("patch_size")
    assert cells[start : start + 3] == ["patch_size", "96 x 96", "slices are <thick> & few"]
    table = dict(itertools.pairwise(cells))
    assert table["labeled"] == "2"
    assert table["iterations"] == "40"
    assert table["method"] == "cps"
    assert table["device"] == "cpu"
    assert table["iterations done"] == "40 in 2 epochs"
    assert table["best mean Dice in validation"] == "0.710"
    assert table["aorta"] == "0.812 [0.812, 0.812]"
    # the curves one by one, and of pictures by epoch the last one only
    assert [picture["alt"].partition(",")[0] for picture in reader.pictures[:-1]] == [
        "mean Dice in validation",
        "validation Dice",
        "loss",
        "loss: labeled",
    ]
    assert "epoch_0002.png" in reader.pictures[-1]["alt"]
    (commands,) = reader.text["code"]
    assert f"metassl infer '{trained}' --images NEW_SCANS --out PREDICTIONS" in commands


def test_a_bundle_before_its_training_says_how_to_train(tmp_path):
    bundle = shutil.copytree(bundle_path("phantom_segmentation"), tmp_path / "new")
    file = page.write_report([bundle], tmp_path / "page.html")
    reader = read(file)
    assert reader.text["code"] == [f"metassl train {bundle}"]
    assert not (bundle / "report.html").exists()


def test_validation_is_scored_where_the_table_is_older_than_the_network(trained, monkeypatch):
    runs = []
    monkeypatch.setattr(scores, "score_validation", lambda run: runs.append(run.folder))
    table = trained / "evaluation_validation" / "metrics.json"
    os.utime(table, (1, 1))
    page.write_report([trained])
    assert runs == []  # no case is held out
    assert "No case is held out" in " ".join(read(trained / "report.html").text["p"])
    datalist = json.loads((trained / "datalist.json").read_text())
    datalist["validation"] = [{**datalist["labeled"].pop(), "subject": "two"}]
    (trained / "datalist.json").write_text(json.dumps(datalist))
    page.write_report([trained])
    assert runs == [trained]


def test_what_cannot_be_segmented_is_said_and_the_rest_is_told(trained):
    """The weights of this network are none, and the images are missing."""
    datalist = json.loads((trained / "datalist.json").read_text())
    datalist["validation"] = [{**datalist["labeled"].pop(), "subject": "two"}]
    datalist["unlabeled"] = [{"image": "2.png", "subject": "three", "case": "2"}]
    (trained / "datalist.json").write_text(json.dumps(datalist))
    page.write_report([trained])
    text = " ".join(read(trained / "report.html").text["p"])
    assert "No pictures of cases:" in text
    assert "Not possible:" in text


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two folders as trainings leave them, with networks that no step has trained, and the first one tracked."""
    import torch
    from monai.bundle import ConfigParser

    folder = tmp_path_factory.mktemp("runs")
    sizes = {"cases": 12, "labeled": 2, "validation": 4, "test": 2, "size": [32, 32, 3], "seed": 0}
    datalist = make_phantom(folder / "data", **sizes)
    config = json.loads((bundle_path("phantom_segmentation") / "configs" / "train.json").read_text())
    config |= {"dataset_dir": str(folder / "data"), "datalist": str(datalist), "device": "$torch.device('cpu')"}
    config |= {"spatial_size": [32, 32], "features": [4, 8, 8, 8, 8]}
    history = "epoch,iteration,loss,learning_rate,loss/unlabeled/a,regions/unlabeled/a/UC,threshold/unlabeled/a/1,{}\n"
    for number, name in enumerate(("one", "two")):
        run = folder / name
        (run / "models").mkdir(parents=True)
        (run / "config_20260101_000000.json").write_text(json.dumps(config))
        (run / "history.csv").write_text(
            history.format("val_mean_dice") + "1,9,2,.1,1,.5,.6,.2\n2,18,1,.0,.5,.7,.7,.3\n"
        )
        torch.manual_seed(number)
        parser = ConfigParser()
        parser.read_config(str(run / "config_20260101_000000.json"))
        torch.save(parser.get_parsed_content("network").state_dict(), run / "models" / "model.pt")
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlruns.db'}")
    experiment = client.create_experiment("test", artifact_location=(folder / "mlruns").as_uri())
    known = {"tracking_uri": client.tracking_uri, "run_id": client.create_run(experiment).info.run_id}
    (folder / "one" / "mlflow_run.json").write_text(json.dumps(known))
    page.write_report([folder / "one", folder / "two"], folder / "report.html")
    return folder


def test_several_runs_stand_beside_each_other_with_their_cases(runs):
    reader = read(runs / "report.html")
    titles = [*reader.text["h2"], *reader.text["h3"], *reader.text["h4"]]
    assert titles[:3] == ["The runs beside each other", "one", "two"]
    for rank in ("Best", "Median", "Worst"):
        assert len([title for title in titles if title.startswith(f"{rank}: phantom")]) == 2
    assert titles.count("What the network says of unlabeled cases") == 2
    alts = [picture["alt"] for picture in reader.pictures]
    assert sum(alt.startswith("Worst validation case") and "slice" in alt for alt in alts) >= 2
    assert sum(alt.startswith("Unlabeled case") for alt in alts) >= 8
    assert any("AS" in text or "mm a voxel" in text for text in reader.text["figcaption"])
    assert "solid: annotation" in reader.text["li"]


def test_every_number_of_a_table_is_in_a_file_beside_the_page(runs):
    tables = {file.stem: list(csv.DictReader(file.open())) for file in (runs / "report_tables").glob("*.csv")}
    assert {"comparison", "runs", "one_validation", "two_validation", "one_unlabeled", "one_settings"} <= set(tables)
    cells = read(runs / "report.html").cells
    for row in (row for row in tables["one_validation"] if row["metric"] == "dice"):
        low, high = float(row["low"]), float(row["high"])
        assert 0 <= low <= float(row["mean"]) <= high <= 1
        assert f"{float(row['mean']):.3f} [{low:.3f}, {high:.3f}]" in cells
    scored = list(csv.DictReader((runs / "one" / "evaluation_validation" / "cases.csv").open()))
    mean = [float(row["dice"]) for row in scored if row["structure"] == "mean"]
    (summary,) = [row for row in tables["one_validation"] if (row["structure"], row["metric"]) == ("mean", "dice")]
    assert float(summary["mean"]) == pytest.approx(sum(mean) / 4, abs=1e-5)
    paired = [row for row in tables["comparison"] if row["metric"] == "dice"]
    assert {row["run"] for row in paired} == {"two"}
    assert all(float(row["p_holm"]) >= float(row["p_wilcoxon"]) for row in paired)


def test_the_page_and_its_tables_are_in_the_run_of_a_tracked_training(runs):
    from mlflow import MlflowClient

    known = json.loads((runs / "one" / "mlflow_run.json").read_text())
    client = MlflowClient(tracking_uri=known["tracking_uri"])
    artifacts = {file.path for file in client.list_artifacts(known["run_id"], "report")}
    assert {"report/report.html", "report/comparison.csv"} <= artifacts
    evaluation = {file.path for file in client.list_artifacts(known["run_id"], "evaluation_validation")}
    assert evaluation == {"evaluation_validation/cases.csv", "evaluation_validation/metrics.json"}


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ({}, {}),
        ({"a": 0.5}, {"a": "Best"}),
        ({"a": 0.5, "b": 0.7, "c": math.nan}, {"b": "Best", "a": "Worst"}),
        ({"a": 0.5, "b": 0.7, "c": 0.1}, {"b": "Best", "a": "Median", "c": "Worst"}),
    ],
)
def test_best_median_and_worst_are_different_cases(dice, expected):
    assert list(cases._best_median_worst(dice).items()) == list(expected.items())


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [tmp_path / parent / "run" for parent in ("a", "b")]
    assert page._names(folders) == ["a_run", "b_run"]
    assert page._names(folders[:1] * 2)[0]


def test_text_of_the_page_is_seen(trained):
    """WCAG 2 asks for a contrast of 4.5 for text."""
    page.write_report([trained])
    style = (trained / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", style)
    colors = {(rule.strip(), value) for rule, body in rules for value in re.findall(r"(?<![-\w])color: (#\w+)", body)}
    grounds = {value for _, body in rules for value in re.findall(r"background: (#\w+)", body)}
    assert len(colors) >= 3
    assert "#ffffff" in grounds
    for rule, color in colors:
        own = re.findall(r"background: (#\w+)", dict(rules).get(rule, "")) or ["#ffffff"]
        assert contrast(color, own[0]) >= 4.5, rule
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


def test_another_folder_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "is neither a bundle nor the output folder of a training" in result.output
