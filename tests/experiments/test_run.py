# SPDX-License-Identifier: Apache-2.0
"""Experiments: the files, the grid, and real runs of a tiny one."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from monai.bundle import ConfigParser
from typer.testing import CliRunner

from metassl_monai.bundle import UserError, locate
from metassl_monai.cli import app
from metassl_monai.experiments.definition import read_experiment, select
from metassl_monai.experiments.runs import mean_score, read_run

ROOT = Path(__file__).parents[2]
CASES = ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "1D7CUD1955YZPGK8XHJX", "1GU15S0GJ6PFNARO469W"]
FLAT = {"metassl_losses::labeled": {"delta": 0}}
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
        "device": "$torch.device('cpu')",
    },
    "methods": {"supervised": {"overrides": {"iterations": 2, "iterations_per_epoch": 1}}},
    "rows": [
        {"method": "supervised", "preset": "plain"},
        {"method": "supervised", "preset": "paper"},
        {
            "method": "supervised",
            "preset": "paper",
            "name": "flat",
            "overrides": {"metassl_losses::labeled": {"delta": 0}},
        },
    ],
}


def write(folder, **changes):
    file = folder / "tiny.json"
    file.write_text(json.dumps({**TINY, **changes}))
    return file


def metassl(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory, write_la):
    """Two rows of the tiny experiment, run for real; the folder."""
    folder = tmp_path_factory.mktemp("experiment")
    write_la(folder / "data", CASES, shape=(36, 34, 32))
    rows = ["--row", "supervised-plain", "--row", "supervised-paper"]
    where = ["--dataset-dir", folder / "data", "--out", folder / "out"]
    result = metassl("experiment", write(folder), *where, *rows)
    assert result.exit_code == 0, result.output
    return folder


def test_a_run_keeps_its_settings_cases_and_history(ran):
    run = read_run(ran / "out" / "results" / "tiny" / "supervised-paper_1_0_7.json")
    settings = run["settings"]
    assert (settings["method"], settings["preset"], settings["seed"]) == ("supervised", "paper", 7)
    assert settings["overrides"]["iterations"] == 2  # the method's wins over the experiment's
    assert len(run["labeled_subjects"]) == 1
    assert run["history"]["epoch"] == [1, 2]
    config = json.loads(next((ran / "out" / "tiny" / "supervised-paper_1_0_7").glob("config_*.json")).read_text())
    assert (config["seed"], config["preset"], config["iterations"]) == (7, "paper", 2)
    scored = {row["subject"] for row in run["cases"]}
    assert len(scored) == 2
    assert scored.isdisjoint(run["labeled_subjects"])
    assert 0 <= mean_score(run) <= 1


def test_each_cell_is_a_run_of_mlflow(ran):
    with sqlite3.connect(ran / "out" / "mlruns.db") as database:
        names = {name for (name,) in database.execute("select name from runs where status = 'FINISHED'")}
    assert names == {"supervised-plain_1_0_7", "supervised-paper_1_0_7"}


def test_done_cells_are_not_run_again_and_the_page_is_made_anew(ran, monkeypatch):
    monkeypatch.setattr(locate, "run_command", lambda command: pytest.fail("it ran"))
    (ran / "out" / "results.md").unlink()
    rows = ["--row", "supervised-plain", "--row", "supervised-paper"]
    result = metassl("experiment", ran / "tiny.json", "--dataset-dir", ran / "data", "--out", ran / "out", *rows)
    assert "2 runs, 2 of them done" in result.output
    page = (ran / "out" / "results.md").read_text()
    assert "## Tiny" in page
    assert page.count("| supervised-paper |") == 4


def test_a_run_of_another_experiment_with_the_same_settings_is_copied(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "run_command", lambda command: pytest.fail("it ran"))
    shutil.copytree(ran / "out" / "results", tmp_path / "results")
    file = write(tmp_path).rename(tmp_path / "again.json")
    where = ["--dataset-dir", ran / "data", "--out", tmp_path, "--row", "supervised-paper"]
    result = metassl("experiment", file, *where)
    assert result.exit_code == 0, result.output
    copy, original = (
        read_run(tmp_path / "results" / name / "supervised-paper_1_0_7.json") for name in ("again", "tiny")
    )
    assert copy["settings"] == {**original["settings"], "experiment": "again"}
    assert copy["cases"] == original["cases"]


def test_a_result_or_a_run_of_other_settings_is_refused(ran, tmp_path):
    file = write(tmp_path, methods={}, overrides={**TINY["overrides"], "iterations": 3})
    where = ["--dataset-dir", ran / "data", "--out", ran / "out", "--row", "supervised-paper"]
    result = metassl("experiment", file, *where)
    assert result.exit_code == 1
    assert "was made with other settings" in result.output
    result = metassl("experiment", file, *where, "--results", tmp_path / "results")
    assert result.exit_code == 1
    assert "holds a run of other settings: remove it, or choose another --out" in result.output


def test_a_cell_that_another_process_has_begun_is_left_to_it(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "run_command", lambda command: pytest.fail("it ran"))
    (tmp_path / "out" / "tiny" / "flat_1_0_7").mkdir(parents=True)
    where = ["--dataset-dir", ran / "data", "--out", tmp_path / "out", "--row", "flat"]
    with FileLock(tmp_path / "out" / "tiny" / "flat_1_0_7" / "lock"):
        result = metassl("experiment", ran / "tiny.json", *where)
    assert result.exit_code == 0
    assert "flat_1_0_7 is left to another process" in result.output
    assert not list((tmp_path / "out" / "results" / "tiny").iterdir())


def test_a_failed_cell_does_not_keep_the_others_from_running(ran, tmp_path, monkeypatch):
    def fail(command):
        raise UserError(3)

    monkeypatch.setattr(locate, "run_command", fail)
    rows = ["--row", "supervised-plain", "--row", "flat"]
    result = metassl("experiment", ran / "tiny.json", "--dataset-dir", ran / "data", "--out", tmp_path / "out", *rows)
    assert result.exit_code == 1
    for name in ("supervised-plain_1_0_7", "flat_1_0_7"):
        assert f"  {name}: exit status 3, see above" in result.output
    assert (tmp_path / "out" / "results.md").is_file()


def test_an_experiment_that_is_asked_to_stop_begins_no_other_cell(ran, tmp_path, monkeypatch):
    commands = []

    def stopped(command):
        commands.append(command)
        raise UserError(143)

    monkeypatch.setattr(locate, "run_command", stopped)
    result = metassl("experiment", ran / "tiny.json", "--dataset-dir", ran / "data", "--out", tmp_path / "out")
    assert result.exception.code == 143
    assert len(commands) == 1
    assert "was stopped; the same command goes on with it." in result.output


def test_test_data_are_read_when_all_cells_are_trained(ran, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(locate, "run_command", lambda command: commands.append(command[4]))
    file = write(tmp_path, split="test")
    # nothing is evaluated in truth, so the first table is missed
    with pytest.raises(FileNotFoundError):
        metassl("experiment", file, "--dataset-dir", ran / "data", "--out", tmp_path / "out", catch_exceptions=False)
    assert commands == ["training"] * 3 + ["evaluating"]


def test_a_cell_that_was_stopped_goes_on_from_its_checkpoint(ran, tmp_path):
    shutil.copytree(ran / "out", tmp_path / "out")
    (tmp_path / "out" / "tiny" / "supervised-paper_1_0_7" / "training.json").unlink()
    result_file = tmp_path / "out" / "results" / "tiny" / "supervised-paper_1_0_7.json"
    before = read_run(result_file)
    result_file.unlink()
    result = rerun(ran, tmp_path / "out")
    assert "equals the stored one" in result.output
    after = read_run(result_file)
    assert after["resumed"]
    assert not before["resumed"]
    assert after["cases"] == before["cases"]


def test_a_rerun_equals_the_stored_run(ran, tmp_path):
    assert "equals the stored one" in rerun(ran, tmp_path / "out").output


def rerun(ran, out):
    where = ["--dataset-dir", ran / "data", "--out", out, "--stored", ran / "out" / "results"]
    result = metassl("experiment", ran / "tiny.json", *where, "--row", "supervised-paper")
    assert result.exit_code == 0, result.output
    return result


def test_the_grid_has_each_row_for_each_number_subset_and_seed(tmp_path):
    cells = read_experiment(write(tmp_path, labeled=[1, 2], subsets=["published", 5], seeds=[1, 2]))
    assert len(cells) == len({cell.name for cell in cells}) == 3 * 2 * 2 * 2
    assert cells[0].name == "supervised-plain_1_published_1"
    few = select(cells, rows=["flat"], labeled=[2], subsets=["5"])
    assert [cell.name for cell in few] == ["flat_2_5_1", "flat_2_5_2"]
    assert few[0].overrides["metassl_losses::labeled"] == {"delta": 0}
    names = [file.stem for file in read_experiment(tmp_path / "tiny.json")[0].configs()]
    assert names == ["train", "supervised", "plain", "la_small"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": []}, "the file has an unknown 'row': choose among title, about, bundle"),
        ({"labeled": 3}, "'labeled' of the file must be a list, not empty, each item a number, not 3"),
        ({"labeled": ["3"]}, "'labeled' of the file must be a list"),
        ({"rows": []}, "'rows' of the file must be a list, not empty"),
        ({"rows": ["cps"]}, "row 1 must be an object, not 'cps'"),
        ({"reader": ["acdc"]}, "'reader' of the file must be a text"),
        ({"methods": {"supervised": {"overlay": []}}}, "the method 'supervised' has an unknown 'overlay'"),
        ({"methods": {"cps": {}}}, "no row has the method 'cps' of 'methods'"),
        ({"reader": "acdcc"}, "reader 'acdcc' is unknown: choose one of abdomenct1k, acdc"),
        ({"split": "train"}, "split 'train' is unknown: choose one of validation, test"),
        ({"checkpoint": "first"}, "checkpoint 'first' is unknown: choose one of best, last"),
        ({"subsets": ["first"]}, "subset 'first' is none: give 'published' or a number"),
        ({"rows": [{"method": "cps"}], "methods": {}}, "row 1 lacks 'preset'"),
        (
            {"rows": [{"method": "cps", "preset": "papr"}], "methods": {}},
            "preset 'papr' is unknown: choose one of plain",
        ),
        ({"rows": [TINY["rows"][0]] * 2}, "two rows are called 'supervised-plain': give one a 'name'"),
        ({"rows": [{**TINY["rows"][0], "name": "../a"}]}, "row name '../a' names files"),
        ({"rows": [{"method": "cpss", "preset": "paper"}], "methods": {}}, "has no config 'cpss'"),
        ({"bundle": "la"}, "no bundle 'la'"),
        (
            {"overrides": {"iteration": 5}},
            "row 'flat': iteration: no config id of this name. Did you mean --iterations",
        ),
    ],
)
def test_a_faulty_file_is_one_message(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_experiment(write(tmp_path, **changes))


def test_a_missing_file_a_broken_one_and_an_unknown_row_are_one_message(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read"):
        read_experiment(tmp_path / "nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_experiment(broken)
    broken.write_text("{}")
    with pytest.raises(UserError, match="the file lacks 'rows'"):
        read_experiment(broken)
    with pytest.raises(UserError, match="--row cps: the experiment has no such one, only supervised-plain, "):
        select(read_experiment(write(tmp_path)), rows=["cps"])


@pytest.mark.parametrize("file", sorted(ROOT.glob("bundles/*/experiments/*.json")), ids=lambda file: file.stem)
def test_the_experiments_of_the_bundles_are_sound(file):
    """Each row's losses can be built, and no two rows of one method are the same."""
    cells = {cell.row: cell for cell in read_experiment(file)}
    assert {cell.bundle for cell in cells.values()} == {file.parents[1].name}
    for cell in cells.values():
        parser = ConfigParser()
        parser.read_config([str(config) for config in cell.configs()])
        preset = {} if cell.preset == "plain" else {"preset": cell.preset}
        parser.update({**preset, **cell.overrides})
        assert isinstance(parser.get_parsed_content("labeled_loss"), torch.nn.Module)
        assert isinstance(parser.get_parsed_content("unlabeled_loss"), torch.nn.Module)
    assert len(
        {json.dumps([cell.method, cell.preset, cell.overlays, cell.overrides]) for cell in cells.values()}
    ) == len(cells)
