# SPDX-License-Identifier: Apache-2.0
"""The tables of experiments against hand-made runs, and the stored results of this project."""

from __future__ import annotations

import json
import math
import re
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import pytest

from metassl_monai.experiments.definition import read_experiment
from metassl_monai.experiments.figures import dice_figure
from metassl_monai.experiments.page import results_page, write_results
from metassl_monai.experiments.runs import mean_score, read_run, write_run
from metassl_monai.report import holm, paired_comparison

ROOT = Path(__file__).parents[2]
SUBJECTS = ("a", "b", "c", "d", "e", "f")


def make_run(row, subset, dice, method="cps", preset=None, **history):
    """A run of one structure whose subjects have two frames of these Dice values."""
    preset = preset or row.split("-")[1]
    settings = {"row": row, "method": method, "preset": preset, "labeled": 3, "subset": subset, "seed": 1}
    cases = [
        {"case": f"{subject}{frame}", "subject": subject, "structure": structure, "dice": value + 0.01 * frame}
        for (subject, value), frame, structure in product(zip(SUBJECTS, dice, strict=True), (-1, 1), ("LV", "mean"))
    ]
    environment = {"device": "cpu", "threads": 1, "torch": "2", "monai": "1"}
    return {
        "settings": settings,
        "labeled_subjects": ["x"],
        "seconds": 90,
        "resumed": False,
        "environment": environment,
        "cases": cases,
        "history": {"epoch": [1, 2], "iteration": [50, 100], **history},
    }


@pytest.fixture
def folder(tmp_path):
    definition = {"title": "Small", "about": "About.", "split": "validation"}
    results = tmp_path / "results"
    results.mkdir()
    (results / "small.json").write_text(json.dumps(definition))
    plain = [[0.5, 0.5, 0.25, 0.75, 0.5, 0.5], [0.25, 0.5, 0.25, 0.5, 0.25, 0.25]]
    gain = [0.1, 0.2, 0.3, 0.15, 0.25, 0.05]
    for subset, values in zip(("0", "1"), plain, strict=True):
        better = [value + more * (1 + int(subset)) for value, more in zip(values, gain, strict=True)]
        regions = {"regions/unlabeled/one/UC": [0.1, 0.25], "regions/unlabeled/two/UC": [0.1, 0.75]}
        hidden = {"hidden/one/accuracy/UC": [0.5, math.nan], "loss/labeled/one": [3, 1], "loss/labeled/two": [3, 0.5]}
        runs = [
            make_run("cps-plain", subset, values),
            make_run("cps-paper", subset, better, **regions, **hidden),
            make_run("fixed", subset, values, preset="paper"),
        ]
        for run in runs:
            write_run(results / "small" / f"{run['settings']['row']}_{subset}.json", run)
    return results


def rows_of(page, title):
    """Cells of the rows of the first table after a title, by their first cell."""
    lines = page[page.index(title) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| ---"))
    head = [cell.strip() for cell in lines[start - 1].strip("|").split("|")]
    table = {}
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        table[cells[0]] = list(zip(head, cells, strict=True))
    return table


def test_scores_are_means_over_subjects_and_runs(folder):
    row = dict(rows_of(results_page(folder), "### 3 labeled")["cps-plain"])
    means = [0.5, 2 / 6]
    half = 12.7062 * abs(means[0] - means[1]) / 2  # t of one degree of freedom, times the standard error of two values
    mean = fmean(means)
    assert row["runs"] == "2"
    assert row["LV"] == row["mean"] == f"{mean:.3f}"
    assert row["over runs"] == f"[{mean - half:.3f}, {mean + half:.3f}]"
    subjects = [0.375, 0.5, 0.25, 0.625, 0.375, 0.375]  # mean of the two runs
    half = 2.5706 * stdev(subjects) / 6**0.5
    assert row["over subjects"] == f"[{mean - half:.3f}, {mean + half:.3f}]"


def test_differences_pair_runs_of_one_subset_and_average_them_within_subjects(folder):
    row = dict(rows_of(results_page(folder), "### 3 labeled")["cps-paper"])
    gains = [1.5 * gain for gain in (0.1, 0.2, 0.3, 0.15, 0.25, 0.05)]
    expected = paired_comparison(gains)
    p = holm([expected.p_wilcoxon, 1.0])[0]  # the row `fixed` equals plain
    assert row["minus plain"] == f"{expected.mean:+.3f} [{expected.low:+.3f}, {expected.high:+.3f}]"
    assert row["by run (plain)"] == "+0.18 +0.35"
    assert row["p (plain)"] == f"{p:.2g}"
    assert row["detectable (plain)"] == f"{expected.detectable:.3f}"


def test_a_named_row_is_compared_with_both_and_the_paper_not_with_itself(folder):
    table = rows_of(results_page(folder), "### 3 labeled")
    assert list(table) == ["cps-plain", "cps-paper", "fixed"]
    assert dict(table["cps-paper"])["minus paper"] == ""
    assert dict(table["fixed"])["minus paper"].startswith("-0.26")
    assert dict(table["fixed"])["minus plain"] == "+0.000 [+0.000, +0.000]"


def test_pairs_are_shown_by_their_last_values(folder):
    page = results_page(folder)
    row = dict(rows_of(page, "What the unlabeled pairs")["cps-paper"])
    assert row["UC"] == "0.500"
    assert row["UC right"] == "0.500"
    assert row["labeled loss"] == "1.500"
    assert row["unlabeled loss"] == ""


def test_every_run_is_listed_and_conclusions_come_first(folder):
    (folder / "conclusions.md").write_text("It works.\n")
    page = write_results(folder).read_text()
    assert page == results_page(folder)
    assert page.index("It works.") < page.index("## Small")
    assert "](results/small_3.png)" in page
    assert "metassl experiment results/small.json " in page
    assert str(folder) not in page
    assert (folder / "small_3.png").stat().st_size > 1000
    assert len(re.findall(r"\| 100 \| 1\.5 \|", page)) == 6


def test_the_bars_are_the_means_and_the_dots_the_runs(folder):
    runs = [read_run(file) for file in sorted((folder / "small").glob("cps-p*.json"))]
    figure = dice_figure({"plain": runs[2:], "paper": runs[:2]})
    (ax,) = figure.axes
    for bar, dots, some in zip(ax.patches, ax.lines, (runs[2:], runs[:2]), strict=True):
        scores = [mean_score(run) for run in some]
        assert bar.get_width() == pytest.approx(fmean(scores))
        assert list(dots.get_xdata()) == scores
    assert [label.get_text() for label in ax.get_yticklabels()] == ["plain", "paper"]


def test_a_run_file_is_strict_json_with_a_line_a_case(tmp_path):
    run = make_run("cps-plain", "0", [math.nan, 1 / 3, *[0.5] * 4])
    write_run(tmp_path / "run.json", run)
    text = (tmp_path / "run.json").read_text()
    assert "NaN" not in text
    assert text.count("\n") < 60
    again = read_run(tmp_path / "run.json")
    assert {key: again[key] for key in again if key != "cases"} == {key: run[key] for key in run if key != "cases"}
    for ours, theirs in zip(again["cases"], run["cases"], strict=True):
        assert ours["dice"] == pytest.approx(theirs["dice"], rel=1e-5, nan_ok=True)
    # a subject without a value does not count
    assert mean_score(again) == pytest.approx(fmean([1 / 3, *[0.5] * 4]), rel=1e-5)


def test_the_settings_of_a_run_keep_all_digits(tmp_path):
    run = make_run("cps-plain", "0", [0.5] * 6)
    run["settings"]["overrides"] = {"method_def": {"box_fraction": 2 / 3}}
    write_run(tmp_path / "run.json", run)
    assert read_run(tmp_path / "run.json")["settings"] == run["settings"]


RECOMMENDED = "bcp-paper-poly"  # the row of best.json
STORED = ROOT / "docs" / "results"


@pytest.mark.skipif(not STORED.is_dir(), reason="a checkout without results")
class TestStoredResults:
    def test_the_page_is_made_from_the_files(self, monkeypatch):
        monkeypatch.chdir(ROOT)
        assert (ROOT / "docs" / "results.md").read_text() == results_page(Path("docs/results"))

    @pytest.mark.parametrize("file", sorted(STORED.glob("*.json")), ids=lambda file: file.stem)
    def test_each_run_is_a_cell_of_its_experiment(self, file):
        cells = {cell.name: cell.settings() for cell in read_experiment(file)}
        for stored in file.with_suffix("").glob("*.json"):
            assert read_run(stored)["settings"] == cells[stored.stem], stored.name

    @pytest.mark.parametrize("file", sorted(STORED.glob("*.json")), ids=lambda file: file.stem)
    def test_the_definition_is_the_one_of_the_bundle(self, file):
        (original,) = ROOT.glob(f"bundles/*/experiments/{file.name}")
        assert file.read_text() == original.read_text()

    def test_the_readme_says_what_they_show(self):
        number = r"([+-]?\d\.\d+)"
        said = rf"Dice of {number}, supervised learning {number}: {number} \[{number}, {number}\]"
        (found,) = re.findall(said, (ROOT / "README.md").read_text().replace("\n", " "))
        small = (ROOT / "docs" / "results.md").read_text().partition("## ACDC, small\n")[2]
        rows = rows_of(small, "### 3 labeled")
        best, supervised = (dict(rows[name]) for name in (RECOMMENDED, "supervised-plain"))
        assert best["runs"] == supervised["runs"] == "3"
        difference = re.findall(number, best["minus supervised-plain"])
        assert list(found) == [best["mean"], supervised["mean"], *difference]
