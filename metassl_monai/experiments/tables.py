# SPDX-License-Identifier: Apache-2.0
"""The tables of an experiment, in Markdown: scores with comparisons, what the unlabeled pairs looked like, the runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import fmean
from typing import Any, NamedTuple

from metassl_monai.report.comparison import Comparison, holm, paired_comparison, subject_differences
from metassl_monai.report.subjects import subject_means, t_interval

from .runs import Run, mean_score, subject_scores

__all__ = ["by_row", "dice_table", "pairs_table", "runs_table"]

_REGIONS = ("UC", "US", "DC", "DS")
_STREAMS = ("labeled", "unlabeled")


def by_row(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Gather runs by their row: a method's own losses first, then the paper's, other presets, and named rows."""
    rows: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=_order):
        rows[run["settings"]["row"]].append(run)
    return dict(rows)


def dice_table(rows: Mapping[str, Sequence[Run]], baselines: Sequence[str]) -> str:
    """Dice of each row, and its differences from its method's rows of some presets, or from some rows.

    Args:
        rows: see :func:`by_row`; of the same number of labeled subjects.
        baselines: presets or rows, such as ``"plain"`` and ``"supervised-plain"``.
    """
    structures = [name for name in _structures(next(iter(rows.values()))[0]) if name != "mean"]
    differences = [_comparisons(rows, name, baselines[:place]) for place, name in enumerate(baselines)]
    head = ["row", "runs", *structures, "mean", "over subjects", "over runs"]
    for name in baselines:
        head += [f"minus {name}", f"by run ({name})", f"p ({name})", f"detectable ({name})"]
    body = []
    for name, runs in rows.items():
        scores = [mean_score(run) for run in runs]
        dice = [_number(fmean(mean_score(run, structure) for run in runs)) for structure in structures]
        intervals = (_interval(_over_runs(map(subject_scores, runs))), _interval(scores))
        compared = [cell for found in differences for cell in _cells(found.get(name))]
        body.append([name, str(len(runs)), *dice, _number(fmean(scores)), *intervals, *compared])
    return _markdown(head, body)


def pairs_table(rows: Mapping[str, Sequence[Run]]) -> str:
    """What the unlabeled pairs of each row looked like at the end of the training, mean over pairs and runs."""
    columns = {
        **{name: f"regions/unlabeled/*/{name}" for name in _REGIONS},
        **{f"{name} right": f"hidden/*/accuracy/{name}" for name in _REGIONS},
        "reference's Dice": "hidden/*/dice/*",
        "threshold": "threshold/unlabeled/*/[1-9]",
    }
    body = []
    for name, runs in rows.items():
        means = [_number(_mean(_last(run, pattern) for run in runs)) for pattern in columns.values()]
        sums = [_number(_mean(_sum(_last(run, f"loss/{stream}/*")) for run in runs)) for stream in _STREAMS]
        body.append([name, *means, *sums])
    return _markdown(["row", *columns, *(f"{stream} loss" for stream in _STREAMS)], body)


def runs_table(runs: Sequence[Run]) -> str:
    """All runs: on what, how good, how long, where."""
    head = [
        "row",
        "labeled",
        "subset",
        "seed",
        "mean Dice",
        "iterations",
        "minutes",
        "device",
        "threads",
        "torch",
        "monai",
    ]
    body = []
    for run in sorted(runs, key=lambda run: (run["settings"]["labeled"], _order(run), _draw(run))):
        settings, environment = run["settings"], run["environment"]
        minutes = f"{run['seconds'] / 60:.1f}{' (resumed)' if run['resumed'] else ''}"
        where = [str(environment[key]) for key in ("device", "threads", "torch", "monai")]
        subset = f"{settings['subset']}: {', '.join(run['labeled_subjects'])}"
        score, done = f"{mean_score(run):.3f}", str(int(run["history"]["iteration"][-1]))
        body.append(
            [settings["row"], str(settings["labeled"]), subset, str(settings["seed"]), score, done, minutes, *where]
        )
    return _markdown(head, body)


def _order(run: Run) -> tuple[Any, ...]:
    settings = run["settings"]
    ranks = {"plain": 0, "paper": 1}
    named = settings["row"] != f"{settings['method']}-{settings['preset']}"
    return settings["method"], named, ranks.get(settings["preset"], 2), settings["row"]


def _structures(run: Run) -> list[str]:
    return list(dict.fromkeys(row["structure"] for row in run["cases"]))


class _Difference(NamedTuple):
    comparison: Comparison
    by_run: list[float]
    p: float


def _comparisons(rows: Mapping[str, Sequence[Run]], baseline: str, compared: Sequence[str]) -> dict[str, _Difference]:
    """Compare each row with the baseline, a row or its method's row of a preset; p is adjusted for their number.

    Rows of the baselines ``compared`` are left out: this row has been compared with them.
    """
    found = {}
    for name, runs in rows.items():
        of_row = [other if other in rows else f"{runs[0]['settings']['method']}-{other}" for other in compared]
        own = baseline if baseline in rows else f"{runs[0]['settings']['method']}-{baseline}"
        differences = _differences(runs, rows.get(own, []))
        if differences and name not in (own, *of_row):
            found[name] = paired_comparison(_over_runs(differences)), [fmean(each.values()) for each in differences]
    adjusted = holm([comparison.p_wilcoxon for comparison, _ in found.values()])
    return {name: _Difference(*both, p) for (name, both), p in zip(found.items(), adjusted, strict=True)}


def _differences(runs: Sequence[Run], baselines: Sequence[Run]) -> list[dict[str, float]]:
    """Difference of each subject, for each run that has a counterpart on the same subset with the same seed."""
    counterparts = {_draw(run): run["cases"] for run in baselines}
    shared = [run for run in runs if _draw(run) in counterparts]
    return [subject_differences(run["cases"], counterparts[_draw(run)], "dice") for run in shared]


def _over_runs(runs: Iterable[Mapping[str, float]]) -> list[float]:
    """Mean of each subject over the runs."""
    return [*subject_means(item for of_run in runs for item in of_run.items()).values()]


def _draw(run: Run) -> tuple[str, int]:
    return run["settings"]["subset"], run["settings"]["seed"]


def _cells(difference: _Difference | None) -> list[str]:
    if difference is None:
        return [""] * 4
    comparison, by_run, p = difference
    interval = f"{comparison.mean:+.3f} [{comparison.low:+.3f}, {comparison.high:+.3f}]"
    return [interval, " ".join(f"{each:+.2f}" for each in by_run), f"{p:.2g}", _number(comparison.detectable)]


def _interval(values: Sequence[float]) -> str:
    if len(values) < 2:
        return ""
    low, high = t_interval(values)
    return f"[{low:.3f}, {high:.3f}]"


def _last(run: Run, pattern: str) -> list[float]:
    """Last values of all metrics of a name."""
    columns = [values for name, values in run["history"].items() if fnmatchcase(name, pattern)]
    known = ([value for value in values if not math.isnan(value)] for values in columns)
    return [values[-1] for values in known if values]


def _sum(values: Sequence[float]) -> list[float]:
    return [sum(values)] if values else []


def _mean(values: Iterable[Sequence[float]]) -> float:
    every = [value for some in values for value in some]
    return fmean(every) if every else math.nan


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
