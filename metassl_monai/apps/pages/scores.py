# SPDX-License-Identifier: Apache-2.0
"""How good the network is on the validation cases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from metassl_monai.report import summarize
from metassl_monai.report.page import Section, Table

from .cases import validation_cases
from .run import TrainedRun
from .segment import reason_of, score_validation

__all__ = ["METRICS", "interval", "short_section", "validation_section"]

METRICS = {"dice": "Dice", "jaccard": "Jaccard", "hd95_mm": "HD95 (mm)", "asd_mm": "ASD (mm)"}

_ABOUT = """\
Mean over {subjects} subjects with its 95 % interval (Student's t over subjects, on a scale that keeps it in the range
of the metric); a structure that was missed has no distance."""


def validation_section(run: TrainedRun) -> Section:
    """Show the table of the validation, which is made first where it is missing, and draw three of its cases."""
    title = "Validation"
    reason = "" if run.scores else _score(run)
    if not run.scores:
        return Section(title, [reason or "The evaluation left no table."])
    summary = summarize(run.scores)
    cells = {(it["structure"], it["metric"]): it for it in summary}
    structures = dict.fromkeys(it["structure"] for it in summary)
    shown = {name: label for name, label in METRICS.items() if any(it["metric"] == name for it in summary)}
    rows = [(structure, *(interval(cells[structure, name]) for name in shown)) for structure in structures]
    caption = "Scores of each structure; every case is in cases.csv of evaluation_validation."
    table = Table(f"{run.name}_validation", caption, ("structure", *shown.values()), rows, summary)
    text = _ABOUT.format(subjects=max(it["subjects"] for it in summary))
    try:
        parts = [*validation_cases(run)]
        return Section(title, [text], tables=[table], parts=parts)
    except Exception as error:  # pictures are not worth the page, whatever has become of the data
        return Section(title, [text, f"No pictures of cases: {reason_of(error)}"], tables=[table])


def short_section(run: TrainedRun) -> Iterator[Section]:
    """Say in a sentence what was trained on what, and what it reached."""
    if run.config_file is None:
        return
    ran = run.config
    # supervised learning looks at no unlabeled case, whatever the data hold
    used = ["labeled", *(["unlabeled"] if any(name.startswith("loss/unlabeled/") for name in run.history) else [])]
    counts = [f"{run.count(key)} {key}" for key in used if run.count(key)]
    data = f" on {' and '.join(counts)} cases" if counts else ""
    length = f", {run.history['iteration'][-1]:.0f} iterations" if run.history else ""
    losses = f"losses {ran.get('preset')}, seed {ran.get('seed')}"
    text = f"{run.name}: {ran.get('method_name', 'a method')} ({losses}) was trained{data}{length}."
    summary = [it for it in summarize(run.scores) if (it["structure"], it["metric"]) == ("mean", "dice")]
    reached = [f"Mean Dice of {it['subjects']} validation subjects: {interval(it)}." for it in summary]
    yield Section("In short", [text, *reached])


def interval(entry: Mapping[str, Any]) -> str:
    """Write a mean with its interval.

    Example:
        >>> interval({"mean": 0.5, "low": 0.25, "high": 0.75, "nan": 1})
        '0.500 [0.250, 0.750] (1 without a value)'
    """
    note = f" ({entry['nan']} without a value)" if entry["nan"] else ""
    spread = "" if math.isnan(entry["low"]) else f" [{entry['low']:.3f}, {entry['high']:.3f}]"
    return f"no value{note}" if math.isnan(entry["mean"]) else f"{entry['mean']:.3f}{spread}{note}"


def _score(run: TrainedRun) -> str:
    """Score the network on the validation cases; say why that is not possible."""
    if run.config_file is None or not run.model.is_file():
        return "Not possible yet: there is no trained network."
    try:
        if not run.count("validation"):
            return "No case is held out for validation, so the quality of the network is not known."
        score_validation(run)
    except Exception as error:  # the page tells what else is known
        return f"The evaluation failed: {reason_of(error)}"
    return ""
