# SPDX-License-Identifier: Apache-2.0
"""The compare command on tables as evaluations write them."""

from __future__ import annotations

import json
import math
import os
import shutil

import pytest
from typer.testing import CliRunner

from metassl_monai.apps.compare import compare_evaluations, verdict, verdicts
from metassl_monai.bundle.errors import UserError
from metassl_monai.cli import app
from metassl_monai.report import case_rows, compare_cases, write_case_table

DICE = (0.5, 0.625, 0.75, 0.6875, 0.5625, 0.8125, 0.71875, 0.53125)


def rows_of(gain=0.0, subjects=8, missed=(), step=0.0):
    """Two cases a subject; the gain grows by a step a subject, and missed subjects have no distances."""
    rows = []
    for i, dice in enumerate(DICE[:subjects]):
        value = {"dice": dice + gain + i * step, "hd95_mm": math.nan if i in missed else 10.0 - dice}
        for frame in ("ed", "es"):
            rows += case_rows(f"p{i}_{frame}", f"p{i}", {"LV": value})
    return rows


@pytest.fixture
def two(tmp_path):
    """The folders of two evaluations, B lower in Dice and with a missed structure."""
    write_case_table(rows_of(0.0625, step=0.001), tmp_path / "a", {"datalist": "three.json", "split": "test"})
    write_case_table(rows_of(missed=[3]), tmp_path / "b", {"datalist": "three.json", "split": "test"})
    return tmp_path / "a", tmp_path / "b"


def metassl(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_compare_prints_a_table_and_a_sentence_a_metric(two, tmp_path):
    result = metassl(*two, "--out", tmp_path / "new" / "result.json")
    assert result.exit_code == 0, result.output
    *table, dice, distance = result.output.splitlines()
    assert sum("dice" in line for line in table) == 2
    assert any("7 (2 NaN)" in line for line in table)
    assert dice.startswith("mean dice: A is higher by 0.066 [0.064, 0.068], more than chance (Holm-corrected")
    assert dice.endswith("Wilcoxon p = 0.0078); 8 subjects could have shown a difference of 0.003.")
    assert distance == "mean hd95_mm: A and B have the same mean over 7 subjects."
    document = json.loads((tmp_path / "new" / "result.json").read_text())
    assert (document["a"], document["b"]) == tuple(str(folder / "metrics.json") for folder in two)
    assert document["rows"] == compare_cases(rows_of(0.0625, step=0.001), rows_of(missed=[3]))


def test_json_is_what_the_file_holds(two, tmp_path):
    result = metassl(*two, "--json", "--out", tmp_path / "result.json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "result.json").read_text())["rows"]


def test_metrics_are_chosen(two):
    result = metassl(*two, "--metric", "hd95_mm")
    assert result.exit_code == 0
    assert "dice" not in result.output


@pytest.mark.parametrize("inner", ["a", "a/metrics.json", "run", "bundle"])
def test_files_folders_and_runs_are_found(inner, two, tmp_path):
    write_case_table(rows_of(), tmp_path / "run" / "evaluation")
    write_case_table(rows_of(), tmp_path / "bundle" / "evaluation_test")
    (tmp_path / "bundle" / "evaluation_empty").mkdir()
    assert len(compare_evaluations(tmp_path / inner, two[1], ["dice"])) == 2


def test_scores_of_an_overwritten_network_are_refused(two, tmp_path):
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    shutil.copytree(two[0], run / "evaluation_validation")
    network = run / "models" / "model.pt"
    network.touch()
    scored = (run / "evaluation_validation" / "metrics.json").stat().st_mtime
    os.utime(network, (scored - 1, scored - 1))
    assert len(compare_evaluations(run, two[1], ["dice"])) > 0
    os.utime(network, (scored + 1, scored + 1))
    with pytest.raises(UserError, match=f"is older than the network in {run}: run evaluate"):
        compare_evaluations(run, two[1], ["dice"])


def test_numbers_without_a_value_are_null(tmp_path):
    for name in "ab":
        write_case_table(rows_of(subjects=1), tmp_path / name)
    rows = compare_evaluations(tmp_path / "a", tmp_path / "b", ["dice"], tmp_path / "result.json")
    assert math.isnan(rows[0]["p_holm"])
    written = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)["rows"][0]
    assert (written["n"], written["mean"], written["low"], written["p_holm"]) == (1, 0.0, None, None)
    assert verdicts(rows) == "mean dice: not compared, since fewer than 2 subjects have a value in both."


def test_the_higher_one_is_named_whichever_comes_first(two):
    [forth], [back] = (verdicts(compare_evaluations(*pair, ["dice"])).splitlines() for pair in (two, two[::-1]))
    assert back == forth.replace("A is", "B is")


@pytest.mark.parametrize(
    ("subjects", "tests", "ending"),
    [(6, 1, "could have shown a difference of 0.100."), (6, 2, "too few for this test to show anything.")],
)
def test_a_test_that_can_show_nothing_is_not_credited_with_power(subjects, tests, ending):
    row = {"structure": "mean", "metric": "dice", "n": subjects, "mean": 0.05, "low": -0.1, "high": 0.2}
    sentence = verdict({**row, "p_holm": 0.4, "tests": tests, "detectable": 0.1})
    assert "no more than chance explains" in sentence
    assert sentence.endswith(ending)


def test_other_datalists_are_a_warning_and_other_splits_a_mistake(two, tmp_path, capsys):
    write_case_table(rows_of(), tmp_path / "six", {"datalist": "six.json", "split": "test"})
    assert compare_evaluations(two[0], tmp_path / "six", ["dice"])
    assert "warning: A was evaluated with three.json, B with six.json" in capsys.readouterr().err
    compare_evaluations(*two, ["dice"])
    assert capsys.readouterr().err == ""
    write_case_table(rows_of(), tmp_path / "held_out", {"datalist": "three.json", "split": "validation"})
    with pytest.raises(UserError, match="A scores the split test, B the split validation"):
        compare_evaluations(two[0], tmp_path / "held_out", ["dice"])


ROW = {"case": "p", "subject": "p", "structure": "mean"}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"cases": []}',
        '{"cases": [3]}',
        '{"cases": [{"case": "p"}]}',
        json.dumps({"cases": [{**ROW, "dice": "high"}]}),
        json.dumps({"cases": [{**ROW, "case": 3}]}),
        json.dumps({"cases": [ROW], "about": "test"}),
    ],
)
def test_json_that_is_no_table_is_refused(content, two):
    (two[0] / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=r"metrics.json: is not a table of cases"):
        compare_evaluations(*two, ["dice"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "b"], "nowhere: there is no such file or folder"),
        (["empty", "b"], "empty: neither this folder nor evaluation* in it holds metrics.json"),
        (["several", "b"], "several evaluations, name one: evaluation_test, evaluation_validation."),
        (["a/cases.csv", "b"], "cases.csv: cannot be read as JSON"),
        (["a", "binary"], "binary: cannot be read as JSON"),
        (["a", "fewer"], "fewer/metrics.json: A and B do not have the same cases: only A has p7_ed, p7_es."),
        (["a", "b", "--metric", "hd95"], "not every row has the metric 'hd95'"),
        (["a", "b", "--out", "b/metrics.json"], "is one of the tables that are compared"),
        (["a", "b", "--out", "empty"], "empty: cannot be written"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_is_one_message(arguments, message, two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\x80\x81")
    write_case_table(rows_of(subjects=7), "fewer")
    for split in ("validation", "test"):
        write_case_table(rows_of(), f"several/evaluation_{split}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = metassl(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert message in result.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
