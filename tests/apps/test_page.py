# SPDX-License-Identifier: Apache-2.0
"""The page of a bundle is one valid HTML file that tells what was decided, trained and reached."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from metassl_monai.apps import page
from metassl_monai.bundle.locate import bundle_path
from metassl_monai.cli import app
from metassl_monai.report import case_rows, overlay_figure, write_case_table

VOID = {"meta", "img", "br", "hr", "link"}


class Reader(HTMLParser):
    """Holds a page to what HTML demands of nesting and pictures, and keeps its text by element."""

    def __init__(self):
        super().__init__()
        self.open, self.pictures, self.text, self.seen = [], [], {}, []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names)
        self.seen.append(tag)
        if tag == "img":
            self.pictures.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)


def read(file):
    text = file.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert text.startswith("<!DOCTYPE html>")
    assert reader.open == []
    assert reader.seen.count("h1") == reader.seen.count("title") == 1
    assert not {"script", "link", "iframe"} & set(reader.seen)
    assert "http" not in text
    assert 'name="viewport"' in text
    for picture in reader.pictures:
        kind, _, content = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
        assert len(picture["alt"]) > 20
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
    cells = reader.text["td"]
    assert cells[:3] == ["patch_size", "96 x 96", "slices are <thick> & few"]
    table = dict(itertools.pairwise(cells))
    assert table["labeled"] == "2"
    assert table["iterations"] == "40"
    assert table["method"] == "cps"
    assert table["device"] == "cpu"
    assert table["iterations done"] == "40 in 2 epochs"
    assert table["best mean Dice in validation"] == "0.710"
    assert table["aorta"] == "0.812 [0.812, 0.812]"
    # two figures of curves, and of pictures by epoch the last one only
    assert [picture["alt"].partition(" over")[0] for picture in reader.pictures[:2]] == [
        "Losses",
        "Dice of the validation cases",
    ]
    assert "epoch_0002.png" in reader.pictures[2]["alt"]
    assert len(reader.pictures) == 3
    (commands,) = reader.text["code"]
    assert f"metassl infer '{trained}' --images NEW_SCANS --out PREDICTIONS" in commands


def test_a_bundle_before_its_training_says_how_to_train(tmp_path):
    bundle = shutil.copytree(bundle_path("phantom_segmentation"), tmp_path / "new")
    file = page.write_report(bundle, tmp_path / "page.html")
    reader = read(file)
    assert reader.text["code"] == [f"metassl train {bundle}"]
    assert not (bundle / "report.html").exists()


def test_validation_is_run_where_the_table_is_older_than_the_network(trained, monkeypatch):
    runs = []
    monkeypatch.setattr(page, "run_bundle", lambda *arguments: runs.append(arguments))
    table = trained / "evaluation_validation" / "metrics.json"
    os.utime(table, (1, 1))
    page.write_report(trained)
    assert runs == []  # no case is held out
    assert "No case is held out" in " ".join(read(trained / "report.html").text["p"])
    datalist = json.loads((trained / "datalist.json").read_text())
    datalist["validation"] = [{**datalist["labeled"].pop(), "subject": "two"}]
    (trained / "datalist.json").write_text(json.dumps(datalist))
    page.write_report(trained)
    ((run_id, configs, arguments),) = runs
    assert run_id == "evaluating"
    assert [config.name for config in configs] == ["config_20260101_000000.json", "evaluate.json"]
    assert arguments[:2] == ["--output_dir", str(trained)]


def test_another_folder_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 1
    assert "is neither a bundle nor the output folder of a training" in result.output
