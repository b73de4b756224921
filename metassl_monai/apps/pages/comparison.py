# SPDX-License-Identifier: Apache-2.0
"""Several trainings beside each other, and whether they differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metassl_monai.apps.compare import verdict
from metassl_monai.report import compare_cases, history_figure, holm, summarize
from metassl_monai.report.page import Section, Table, figure_picture

from .run import TrainedRun
from .scores import METRICS, interval

__all__ = ["comparison_section"]

_COMPARED = ("dice", "hd95_mm")
_ABOUT = """\
Cases are paired and averaged within each subject. p: Wilcoxon's signed-rank test over subjects, corrected for all
tests of its metric in this table (Holm). Detectable: the smallest difference that one t-test of so many subjects shows
in 80 % of such comparisons. Chance is that of the cases, not of another seed or of other labeled subjects."""


def comparison_section(runs: Sequence[TrainedRun]) -> Section:
    """Compare each run with the first one."""
    scored = [run for run in runs if run.scores]
    tables = [_overview(scored)] if scored else []
    text = [f"{run.name} has no scores and is not compared." for run in runs if not run.scores]
    try:
        differences = _differences(scored)
    except ValueError as error:  # runs of other cases
        differences, text = [], [*text, f"Not tested: {error}."]
    if differences:
        header = ("run", "structure", "metric", "difference [95 %]", "p", "detectable", "subjects")
        rows = [_row(it) for it in differences]
        caption = f"Each run minus {scored[0].name}, paired over subjects."
        tables.append(Table("comparison", caption, header, rows, differences))
        text += [*_verdicts(differences), _ABOUT]
    curves = {f"val_mean_dice/{run.name}": run.history["val_mean_dice"] for run in runs if _is_drawn(run, runs[0])}
    pictures = []
    if len(curves) > 1:
        figure = history_figure({"epoch": runs[0].history["epoch"], **curves}, "val_mean_dice", "", "Dice")
        alt = "Mean Dice in validation over the epochs, a curve a run: " + ", ".join(run.name for run in runs)
        pictures.append(figure_picture(figure, alt, "Mean Dice in validation, a curve a run; see each history.csv."))
    return Section("The runs beside each other", text, tables=tables, pictures=pictures)


def _is_drawn(run: TrainedRun, first: TrainedRun) -> bool:
    """Say whether a run has a curve over the epochs of the first one."""
    return "val_mean_dice" in run.history and run.history["epoch"] == first.history.get("epoch")


def _overview(runs: Sequence[TrainedRun]) -> Table:
    records = [{"run": run.name, **it} for run in runs for it in summarize(run.scores)]
    cells = {(it["run"], it["structure"], it["metric"]): it for it in records}
    structures = dict.fromkeys(it["structure"] for it in records)
    shown = [(run, structure) for run in runs for structure in structures if (run.name, structure, "dice") in cells]
    metrics = [name for name in METRICS if all((run.name, structure, name) in cells for run, structure in shown)]
    rows = [
        (f"{run.name}: {structure}", *(interval(cells[run.name, structure, name]) for name in metrics))
        for run, structure in shown
    ]
    header = ("run and structure", *(METRICS[name] for name in metrics))
    return Table("runs", "Scores of each run on its validation cases.", header, rows, records)


def _differences(runs: Sequence[TrainedRun]) -> list[dict[str, Any]]:
    """Compare each run with the first; p is corrected for the tests of all runs and structures of a metric."""
    rows = [
        {"run": run.name, "minus": runs[0].name, **row}
        for run in runs[1:]
        for row in compare_cases(run.scores, runs[0].scores, _COMPARED)
    ]
    for metric in _COMPARED:
        some = [row for row in rows if row["metric"] == metric]
        for row, p in zip(some, holm([row["p_wilcoxon"] for row in some]), strict=True):
            row["p_holm"], row["tests"] = p, len(some)
    return rows


def _verdicts(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    means = [it for it in differences if it["structure"] == "mean"]
    return [f"{it['run']} beside {it['minus']}: {verdict(it, it['run'], it['minus'])}" for it in means]


def _row(it: Mapping[str, Any]) -> tuple[str, ...]:
    spread = "" if math.isnan(it["low"]) else f" [{it['low']:+.3f}, {it['high']:+.3f}]"
    subjects = f"{it['n']} ({it['nan']} without a value)" if it["nan"] else str(it["n"])
    known = [f"{it['mean']:+.3f}{spread}", f"{it['p_holm']:.2g}", f"{it['detectable']:.3f}"]
    shown = ["no value" if text.startswith(("+nan", "nan")) else text for text in known]
    return (it["run"], it["structure"], METRICS[it["metric"]], *shown, subjects)
