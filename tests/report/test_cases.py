# SPDX-License-Identifier: Apache-2.0
"""Case rows, the clustered summary, the written files and the terminal table."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from rich.console import Console
from scipy import special, stats

from metassl_monai.metrics import METRIC_NAMES, segmentation_metrics
from metassl_monai.report import case_rows, format_summary, summarize, write_case_table

NAN = math.nan


def rows_of(*values: tuple[str, float], structure: str = "LV") -> list[dict[str, Any]]:
    """A row a (subject, dice) pair."""
    return [
        {"case": f"{subject}_{i}", "subject": subject, "structure": structure, "dice": dice}
        for i, (subject, dice) in enumerate(values)
    ]


def only(summary: list[dict[str, Any]]) -> dict[str, Any]:
    """The single row of a summary."""
    [row] = summary
    return row


def strict(text: str) -> Any:
    """Parse JSON, refusing Python's NaN and Infinity."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def rendered(summary: list[dict[str, Any]], **options: Any) -> str:
    """What the terminal shows."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(format_summary(summary, **options))
    return console.export_text()


def test_case_rows_flatten_and_add_the_mean() -> None:
    metrics = {"RV": {"dice": 0.5, "hd95_mm": 8.0}, "LV": {"dice": 0.7, "hd95_mm": 4.0}}
    rows = case_rows("p1_ed", "p1", metrics)
    assert [row["structure"] for row in rows] == ["RV", "LV", "mean"]
    assert all((row["case"], row["subject"]) == ("p1_ed", "p1") for row in rows)
    assert rows[1] == {"case": "p1_ed", "subject": "p1", "structure": "LV", "dice": 0.7, "hd95_mm": 4.0}
    assert rows[2]["dice"] == pytest.approx(0.6)
    assert rows[2]["hd95_mm"] == 6.0


def test_a_missed_structure_makes_the_mean_distance_nan_and_is_counted() -> None:
    truth = np.array([[1, 1, 0, 2, 2]])
    cases = {"found": truth, "missed": np.where(truth == 2, 0, truth)}
    rows: list[dict[str, Any]] = []
    for case, prediction in cases.items():
        # structure 3 is in neither mask, so that it is left out of the mean
        metrics = segmentation_metrics(prediction, truth, {"1": "LV", "2": "RV", "3": "aorta"}, (1.0, 1.0))
        rows += case_rows(case, case, metrics)
    found, missed = (row for row in rows if row["structure"] == "mean")
    assert (found["dice"], found["hd95_mm"]) == (1.0, 0.0)
    assert missed["dice"] == 0.5
    assert math.isnan(missed["hd95_mm"])
    summary = {row["metric"]: row for row in summarize(rows) if row["structure"] == "mean"}
    assert (summary["dice"]["nan"], summary["hd95_mm"]["nan"]) == (0, 1)


def test_mean_row_is_nan_where_every_structure_is() -> None:
    rows = case_rows("a", "a", {"RV": {"dice": NAN}, "LV": {"dice": NAN}})
    assert math.isnan(rows[-1]["dice"])


def test_a_structure_called_mean_is_refused() -> None:
    with pytest.raises(ValueError, match=r"case 'p1_ed' has a structure called 'mean'.*rename"):
        case_rows("p1_ed", "p1", {"mean": {"dice": 1.0}})


def test_metrics_pass_through_with_their_units() -> None:
    labels = np.eye(4, dtype=int)
    rows = case_rows("a", "a", segmentation_metrics(labels, labels, {"1": "LV"}, (1.0, 1.0)))
    assert all(tuple(row)[3:] == METRIC_NAMES for row in rows)


def test_interval_is_students_over_subject_means_on_the_logit_scale() -> None:
    row = only(summarize(rows_of(("a", 0.8), ("a", 1.0), ("b", 0.7), ("c", NAN), ("c", 0.6))))
    means = [0.9, 0.7, 0.6]
    mean = np.mean(means)
    scale = stats.sem(means) / (mean * (1 - mean))
    low, high = special.expit(stats.t.interval(0.95, 2, loc=special.logit(mean), scale=scale))
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((np.mean(means), low, high))
    assert (row["cases"], row["subjects"], row["nan"]) == (5, 3, 1)


def test_a_second_frame_of_each_subject_does_not_narrow_the_interval() -> None:
    once = rows_of(("a", 0.9), ("b", 0.7), ("c", 0.6))
    one, two = only(summarize(once)), only(summarize(once + once))
    assert (two["low"], two["high"]) == pytest.approx((one["low"], one["high"]))
    assert (one["cases"], two["cases"], one["subjects"], two["subjects"]) == (3, 6, 3, 3)


def test_subjects_weigh_alike_however_many_cases_they_have() -> None:
    assert only(summarize(rows_of(("a", 1.0), ("a", 1.0), ("a", 1.0), ("b", 0.0))))["mean"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rows", "mean", "subjects", "nan"),
    [
        (rows_of(("a", 0.4), ("a", 0.6)), 0.5, 1, 0),
        (rows_of(("a", 0.4), ("b", NAN)), 0.4, 1, 1),
        (rows_of(("a", NAN), ("b", NAN)), NAN, 0, 2),
    ],
    ids=["one subject", "one subject with a value", "no value"],
)
def test_no_interval_below_two_subjects(rows: list[dict[str, Any]], mean: float, subjects: int, nan: int) -> None:
    row = only(summarize(rows))
    assert row["mean"] == pytest.approx(mean, nan_ok=True)
    assert (row["low"], row["high"]) == pytest.approx((NAN, NAN), nan_ok=True)
    assert (row["cases"], row["subjects"], row["nan"]) == (2, subjects, nan)


def test_summary_keeps_the_order_of_structures_and_metrics() -> None:
    rows = case_rows("a", "a", {"RV": {"dice": 1.0, "asd_mm": 0.0}, "LV": {"dice": 0.5, "asd_mm": 2.0}})
    pairs = [(row["structure"], row["metric"], row["mean"]) for row in summarize(rows)]
    assert pairs == [
        ("RV", "dice", 1.0), ("RV", "asd_mm", 0.0), ("LV", "dice", 0.5), ("LV", "asd_mm", 2.0),
        ("mean", "dice", 0.75), ("mean", "asd_mm", 1.0),
    ]  # fmt: skip
    assert summarize([]) == []


def test_a_row_without_a_metric_is_refused() -> None:
    rows = rows_of(("a", 0.5), ("b", 0.6))
    del rows[1]["dice"]
    with pytest.raises(KeyError, match="dice"):
        summarize(rows)


def test_files_hold_all_rows(tmp_path: Path) -> None:
    rows = rows_of(("a", 1 / 3), ("b", NAN), ("b", 123456789.0))
    write_case_table(rows, tmp_path / "new" / "folder", about={"method": "UA-MT", "temperature": NAN, "seeds": (1, 2)})
    with open(tmp_path / "new" / "folder" / "cases.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["dice"] for row in table] == ["0.333333", "nan", "1.23457e+08"]
    assert table[0] | {"dice": ""} == {"case": "a_0", "subject": "a", "structure": "LV", "dice": ""}
    document = strict((tmp_path / "new" / "folder" / "metrics.json").read_text(encoding="utf-8"))
    assert document["about"] == {"method": "UA-MT", "temperature": None, "seeds": [1, 2]}
    assert [row["dice"] for row in document["cases"]] == [1 / 3, None, 123456789.0]
    assert document["summary"][0]["nan"] == 1
    assert list(document) == ["about", "summary", "cases"]


def test_names_with_commas_and_accents_survive_the_csv(tmp_path: Path) -> None:
    write_case_table(rows_of(("müller, a", 1.0), structure='"LV"'), tmp_path)
    with open(tmp_path / "cases.csv", newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["subject"], row["structure"]) == ("müller, a", '"LV"')


def test_no_rows_and_no_about(tmp_path: Path) -> None:
    write_case_table([], tmp_path)
    assert (tmp_path / "cases.csv").read_text() == "case,subject,structure\n"
    assert strict((tmp_path / "metrics.json").read_text()) == {"about": None, "summary": [], "cases": []}


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_case_table(rows_of(("a", 0.5)), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(_: int) -> NoReturn:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_case_table(rows_of(("a", 0.9)), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("about", "error"), [({"x": math.inf}, ValueError), ({"x": object()}, TypeError)])
def test_what_json_cannot_hold_is_refused_before_writing(
    tmp_path: Path, about: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        write_case_table(rows_of(("a", 0.5)), tmp_path / "folder", about)
    assert not (tmp_path / "folder").exists()


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_case_table(rows_of(("a", 0.5)), tmp_path)
    assert (tmp_path / "cases.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_table_shows_mean_interval_and_nan_count() -> None:
    text = rendered(summarize(rows_of(("a", 0.9), ("b", 0.7), ("c", NAN), ("d", NAN))), metrics=("dice",))
    half = 12.7062 * 0.1 / (0.8 * 0.2)  # t(0.975, 1) times the standard error of (0.9, 0.7), as logits
    low, high = special.expit([special.logit(0.8) - half, special.logit(0.8) + half])
    assert f"0.800 [{low:.3f}, {high:.3f}] (2 NaN)" in text
    assert "NaN" not in rendered(summarize(rows_of(("a", 0.9), ("b", 0.7))), metrics=("dice",))


def test_table_shows_brackets_that_rich_would_take_for_markup() -> None:
    assert "[b] " in (text := rendered(summarize(rows_of(("a", NAN), structure="[b]")), metrics=("dice",)))
    assert "nan [nan, nan] (1 NaN)" in text


def test_table_has_a_row_a_structure_and_units_in_its_header() -> None:
    labels = np.arange(16).reshape(4, 4) % 3
    rows = case_rows("a", "a", segmentation_metrics(labels, labels, {1: "RV", 2: "LV"}, (1.0, 1.0)))
    table = format_summary(summarize(rows))
    assert [column.header for column in table.columns] == ["structure", "dice", "jaccard", "hd95_mm", "asd_mm"]
    assert [str(cell) for cell in table.columns[0].cells] == ["RV", "LV", "mean"]
    with pytest.raises(KeyError):
        format_summary(summarize(rows), metrics=("precision",))
