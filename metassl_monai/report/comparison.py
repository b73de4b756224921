# SPDX-License-Identifier: Apache-2.0
"""Which of two is better, by how much, and is that more than chance: paired statistics with subjects as the unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from statistics import fmean, stdev
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text
from scipy import optimize, stats

from .cases import CaseRow
from .subjects import LEVEL, subject_means, t_interval

__all__ = [
    "Comparison",
    "compare_cases",
    "format_comparison",
    "holm",
    "paired_comparison",
    "subject_differences",
]

_POWER = 0.8
_DECIMALS = 12  # of a difference: rounding errors must neither break a tie nor make a rank of a zero
_MOST_NAMED = 5


class Comparison(NamedTuple):
    """What paired differences say; differences are in the unit of the metric, see :func:`paired_comparison`."""

    n: int
    """Number of units, e.g. subjects."""
    mean: float
    """Mean difference."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    p_t: float
    """Two-sided p of the paired t-test, 0 to 1."""
    p_wilcoxon: float
    """Two-sided p of the Wilcoxon signed-rank test, 0 to 1."""
    detectable: float
    """Smallest mean difference that n units of this spread show in 80 % of such comparisons, at a two-sided 5 %."""


def paired_comparison(differences: Sequence[float]) -> Comparison:
    """Compare two things by one difference for each independent unit.

    The interval is Student's t with n - 1 degrees of freedom. The Wilcoxon test is that of scipy, exact for up to 50
    units without ties; units that do not differ are left out of it, and its p is 1 where none does. ``detectable``
    is of one paired t-test with the standard deviation of these differences, by the noncentral t distribution
    (Cohen, Statistical Power Analysis, 1988); a correction for several tests makes it larger.

    Args:
        differences: One finite number for each unit. Values of one unit, such as two frames of a patient, must have
            been averaged before, as :func:`subject_differences` does.

    Returns:
        The comparison. All but ``n`` and ``mean`` are NaN with fewer than 2 units, and ``mean`` too with none.

    Raises:
        ValueError: A difference is not finite.

    Example:
        >>> result = paired_comparison([0.02, 0.05, 0.03, 0.01, 0.04, 0.06])
        >>> f"{result.mean:.3f} [{result.low:.3f}, {result.high:.3f}], p = {result.p_wilcoxon:.3f}"
        '0.035 [0.015, 0.055], p = 0.031'
        >>> f"{result.detectable:.3f}"
        '0.027'
    """
    if not all(map(math.isfinite, differences)):
        raise ValueError("differences must be finite: leave out units that have no value")
    values = [round(float(value), _DECIMALS) for value in differences]
    n, mean = len(values), fmean(values) if values else math.nan
    if n < 2:
        return Comparison(n, mean, *[math.nan] * 5)
    error = stdev(values) / math.sqrt(n)
    p_t = 2 * float(stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    p_wilcoxon = float(stats.wilcoxon(values).pvalue) if any(values) else 1.0
    return Comparison(n, mean, *t_interval(values), p_t, p_wilcoxon, _detectable_errors(n) * error)


def subject_differences(
    rows_a: Sequence[CaseRow], rows_b: Sequence[CaseRow], metric: str, structure: str = "mean"
) -> dict[str, float]:
    """Pair the cases of A and B and average their differences within each subject.

    Args:
        rows_a: Rows of A, as :func:`metassl_monai.report.case_rows` gives them.
        rows_b: Rows of B, of the same cases in any order.
        metric: Name of the metric, e.g. ``"dice"``.
        structure: Name of the structure; ``"mean"`` is the mean over all.

    Returns:
        A - B of each subject, in the metric's unit. A case without a value (NaN) in A or B is left out, and so is a
        subject without any other; :func:`compare_cases` counts them.

    Raises:
        ValueError: A case is in one only, or twice in one.
        KeyError: A row lacks the metric.

    Example:
        >>> a, b = ([{"case": c, "subject": c[0], "structure": "mean", "dice": d} for c, d in cases] for cases in (
        ...         (("p1", 0.75), ("p2", 0.5), ("q1", 0.5)), (("p1", 0.5), ("p2", 0.5), ("q1", 0.25))))
        >>> subject_differences(a, b, "dice")
        {'p': 0.125, 'q': 0.25}
    """
    return subject_means(_case_differences(rows_a, rows_b, metric, structure))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number by the step-down method of Holm (Scand. J. Statist. 6, 1979).

    The chance of any false alarm stays below the level however the tests depend on each other.

    Args:
        p_values: 0 to 1; NaN for a test that could not be made, which does not count.

    Returns:
        The adjusted p-values in the same order, each at least as large as before and at most 1; NaN stays NaN.

    Example:
        >>> holm([0.03, 0.01, float("nan"), 0.04])
        [0.06, 0.03, nan, 0.06]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = largest
    return adjusted


def compare_cases(
    rows_a: Sequence[CaseRow], rows_b: Sequence[CaseRow], metrics: Sequence[str] = ("dice", "hd95_mm")
) -> list[dict[str, Any]]:
    """Compare A and B in each structure and metric.

    Args:
        rows_a: Rows of A, as :func:`metassl_monai.report.case_rows` gives them.
        rows_b: Rows of B, of the same cases and structures in any order.
        metrics: Metrics to compare.

    Returns:
        A row for each structure (in order of appearance in A) and metric: ``structure``, ``metric``, the fields of
        :class:`Comparison` for A - B over subjects, ``p_holm`` (``p_wilcoxon`` adjusted for all structures of this
        metric, their mean included), ``tests`` (how many those are) and ``nan`` (cases left out because A or B has no
        value).

    Raises:
        ValueError: A structure or case is in one only, a case is twice in one, or a row lacks a metric.

    Example:
        >>> a, b = ([{"case": str(i), "subject": str(i), "structure": "mean", "dice": d} for i, d in enumerate(x)]
        ...         for x in ((0.75, 0.5, 0.5), (0.5, 0.25, 0.5)))
        >>> [row] = compare_cases(a, b, metrics=("dice",))
        >>> f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]", row["n"], row["p_holm"], row["nan"]
        ('0.167 [-0.192, 0.525]', 3, 0.5, 0)
    """
    structures = dict.fromkeys(row["structure"] for row in rows_a)
    _refuse_difference("structure", structures.keys(), {row["structure"] for row in rows_b})
    for metric in metrics:
        if any(metric not in row for row in (*rows_a, *rows_b)):
            raise ValueError(f"not every row has the metric {metric!r}")
    by_metric = [_compare_metric(rows_a, rows_b, metric, [*structures]) for metric in metrics]
    return [row for rows in zip(*by_metric, strict=True) for row in rows]


def format_comparison(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table for the terminal: a row a structure and metric.

    Args:
        rows: What :func:`compare_cases` returns.

    Returns:
        The table; the number of cases that were left out is noted where there are any.

    Example:
        >>> row = {"structure": "LV", "metric": "dice", **paired_comparison([0.25, 0.5])._asdict(), "p_holm": 0.5,
        ...        "nan": 1}
        >>> list(format_comparison([row]).columns[2].cells)
        [<text '0.375 [-1.213, 1.963]' [] ''>]
    """
    table = Table("structure", "metric", "A - B [95 %]", "t: p", "Wilcoxon: p", "Holm: p", "detectable", "subjects")
    for row in rows:
        difference = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        p_values = (f"{row[name]:.2g}" for name in ("p_t", "p_wilcoxon", "p_holm"))
        subjects = f"{row['n']} ({row['nan']} NaN)" if row["nan"] else str(row["n"])
        cells = (row["structure"], row["metric"], difference, *p_values, f"{row['detectable']:.3f}", subjects)
        # Text, not str: rich would take "[nan, nan]" for markup and swallow it.
        table.add_row(*map(Text, cells))
    return table


def _detectable_errors(n: int) -> float:
    """Mean difference, in standard errors, at which a paired t-test of n units has the power."""
    critical = float(stats.t.ppf(1 - LEVEL / 2, n - 1))
    # The other tail adds less than 1e-6 of power here, and scipy has no number for much of it.
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, n - 1, shift) - _POWER, 0, 3 * critical))


def _compare_metric(
    rows_a: Sequence[CaseRow], rows_b: Sequence[CaseRow], metric: str, structures: Sequence[str]
) -> list[dict[str, Any]]:
    rows = {}
    for structure in structures:
        differences = _case_differences(rows_a, rows_b, metric, structure)
        comparison = paired_comparison([*subject_means(differences).values()])
        missing = sum(math.isnan(value) for _, value in differences)
        rows[structure] = {"structure": structure, "metric": metric, **comparison._asdict(), "nan": missing}
    # the mean over a single structure repeats it, and is no test of its own
    tested = [structure for structure in structures if structure != "mean" or len(structures) != 2]
    p_values = [rows[structure]["p_wilcoxon"] for structure in tested]
    adjusted = dict(zip(tested, holm(p_values), strict=True))
    tests = sum(not math.isnan(p) for p in p_values)
    return [{**row, "p_holm": adjusted.get(name, adjusted[tested[0]]), "tests": tests} for name, row in rows.items()]


def _case_differences(
    rows_a: Sequence[CaseRow], rows_b: Sequence[CaseRow], metric: str, structure: str
) -> list[tuple[str, float]]:
    """Subject and A - B of each case, NaN included."""
    a, b = (_by_case(name, rows, structure) for name, rows in (("A", rows_a), ("B", rows_b)))
    _refuse_difference("case", a.keys(), b.keys())
    return [(row["subject"], row[metric] - b[case][metric]) for case, row in a.items()]


def _by_case(name: str, rows: Sequence[CaseRow], structure: str) -> dict[str, CaseRow]:
    found: dict[str, CaseRow] = {}
    for row in rows:
        if row["structure"] == structure and found.setdefault(row["case"], row) is not row:
            raise ValueError(f"{name} has the case {row['case']!r} twice")
    return found


def _refuse_difference(kind: str, a: Set[str], b: Set[str]) -> None:
    only = {"A": sorted(a - b), "B": sorted(b - a)}
    parts = [f"only {which} has {_listed(names)}" for which, names in only.items() if names]
    if parts:
        raise ValueError(f"A and B do not have the same {kind}s: {'; '.join(parts)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
