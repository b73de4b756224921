# SPDX-License-Identifier: Apache-2.0
"""What a run of an experiment left behind: one small JSON file, a line for each case and each metric."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from metassl_monai.files import atomic_write, nan_for_null, null_for_nan
from metassl_monai.report.subjects import subject_means

__all__ = ["Run", "mean_score", "read_run", "subject_scores", "write_run"]

Run = Mapping[str, Any]
"""``settings``, ``labeled_subjects``, ``seconds``, ``resumed``, ``environment``, ``cases`` (rows as of
:func:`metassl_monai.report.case_rows`), ``ema_cases`` (the same, as the average of the weights segments them; runs may
lack it) and ``history`` (columns as of :func:`metassl_monai.report.read_history`)."""

_DIGITS = 6


def write_run(path: str | Path, run: Run) -> None:
    """Write a run as strict JSON with 6 significant digits, one line a case and a metric so that changes can be read.

    The settings keep all digits: they say which cell of an experiment a run is.

    Args:
        path: the file; its folder is created.
        run: see :data:`Run`.
    """
    run = null_for_nan(run)
    content = {key: value if key == "settings" else _rounded(value) for key, value in run.items()}
    lines = [f" {json.dumps(key)}: {_text(value)}" for key, value in content.items()]
    with atomic_write(path) as file:
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


def read_run(path: str | Path) -> Run:
    """Read what :func:`write_run` wrote; NaN where it has ``null``."""
    run = json.loads(Path(path).read_text(encoding="utf-8"))
    return {**run, **{key: nan_for_null(run[key]) for key in ("cases", "ema_cases", "history") if key in run}}


def subject_scores(run: Run, structure: str = "mean") -> dict[str, float]:
    """Return each subject's Dice, mean over its cases that have a value; subjects without any are left out."""
    return subject_means((row["subject"], row["dice"]) for row in run["cases"] if row["structure"] == structure)


def mean_score(run: Run, structure: str = "mean") -> float:
    """Return the mean Dice over the subjects of a run, see :func:`subject_scores`; NaN where none has a value."""
    scores = subject_scores(run, structure)
    return fmean(scores.values()) if scores else math.nan


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()) + "\n }"
    return json.dumps(value, allow_nan=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
