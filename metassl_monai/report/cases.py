# SPDX-License-Identifier: Apache-2.0
"""Case rows, their summary clustered by subject, and the files and table that show them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from metassl_monai.files import atomic_write, write_json

from .intervals import FRACTIONS, mean_interval
from .subjects import subject_means

__all__ = ["CaseRow", "case_rows", "format_summary", "summarize", "write_case_table"]

CaseRow = dict[str, Any]
"""``{"case": str, "subject": str, "structure": str, metric: float, ...}``."""

_KEYS = ("case", "subject", "structure")


def case_rows(case: str, subject: str, metrics: Mapping[str, Mapping[str, float]]) -> list[CaseRow]:
    """Flatten the metrics of one case into rows and add their mean over the structures.

    Args:
        case: Name of the case, e.g. ``"patient001_frame01"``.
        subject: Name of the subject that the case was taken from, e.g. ``"patient001"``.
        metrics: What :func:`metassl_monai.metrics.segmentation_metrics` returns.

    Returns:
        A row a structure, then one with ``structure="mean"``: each metric's mean over the structures. A structure that
        is in neither mask (all its metrics are NaN) is left out. Where any other structure has no value, such as a
        distance to a structure that was missed, the mean is NaN: to leave that one out would reward missing it.

    Raises:
        ValueError: A structure is itself called ``"mean"``.

    Example:
        >>> case_rows("p1_ed", "p1", {"LV": {"dice": 1.0}, "RV": {"dice": 0.5}})[-1]
        {'case': 'p1_ed', 'subject': 'p1', 'structure': 'mean', 'dice': 0.75}
    """
    if "mean" in metrics:
        raise ValueError(f"case {case!r} has a structure called 'mean', the name of the mean row: rename it in labels")
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    present = [values for values in metrics.values() if not all(map(math.isnan, values.values()))]
    # fmean of a NaN is NaN, which the summary counts
    mean = {name: fmean(values[name] for values in present) if present else math.nan for name in names}
    return [
        {"case": case, "subject": subject, "structure": structure, **values}
        for structure, values in (*metrics.items(), ("mean", mean))
    ]


def summarize(rows: Sequence[CaseRow]) -> list[dict[str, Any]]:
    """Mean and 95 % interval of each metric of each structure, with subjects as the unit.

    Cases of one subject are not independent: ACDC has two frames of each patient, and a heart that is hard at one is
    hard at the other. An interval over the cases would count each patient twice and come out too narrow. So the cases
    of a subject are averaged first, and mean and interval are taken over the subjects' means: Student's t, n - 1
    degrees of freedom, on a scale that keeps it in the range of the metric, see
    :func:`~metassl_monai.report.intervals.mean_interval`.

    Args:
        rows: Rows of any number of cases, as :func:`case_rows` gives them.

    Returns:
        A row for each structure (in order of appearance) and metric: ``structure``, ``metric``, ``mean``, ``low`` and
        ``high`` (in the metric's unit; the interval is NaN with fewer than 2 subjects), ``cases`` (rows seen, NaN
        included), ``subjects`` (subjects with a value, the n of mean and interval) and ``nan`` (cases whose value is
        NaN, which count toward neither).

    Raises:
        KeyError: A row lacks a metric that another row has.

    Example:
        >>> rows = [{"case": c, "subject": c[0], "structure": "LV", "dice": d} for c, d in
        ...         (("a1", 0.8), ("a2", 1.0), ("b1", 0.7))]
        >>> [row] = summarize(rows)
        >>> f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]", row["cases"], row["subjects"], row["nan"]
        ('0.80 [0.00, 1.00]', 3, 2, 0)
    """
    structures = dict.fromkeys(row["structure"] for row in rows)
    names = _metric_names(rows)
    return [
        _summary_row(structure, name, [row for row in rows if row["structure"] == structure])
        for structure in structures
        for name in names
    ]


def write_case_table(rows: Sequence[CaseRow], directory: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write ``cases.csv`` and ``metrics.json``, each replaced in one step so that no reader sees half a file.

    ``cases.csv`` has all rows, with 6 significant digits and ``nan`` for NaN. ``metrics.json`` is strict JSON,
    ``{"about": ..., "summary": [...], "cases": [...]}``, in full precision and with ``null`` for NaN.

    Args:
        rows: Rows of any number of cases, as :func:`case_rows` gives them.
        directory: Folder to write into; created where it is missing.
        about: What the numbers are of (method, data, checkpoint, ...), in types that JSON has.

    Raises:
        KeyError: A row lacks a metric that another row has.
        TypeError: ``about`` has a type that JSON has not. Nothing is written.
        ValueError: A number is infinite, for which JSON has no form. Nothing is written.
        OSError: The folder or a file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_case_table(case_rows("a1", "a", {"LV": {"dice": 0.5}}), folder, about={"method": "UA-MT"})
        ...     print(Path(folder, "cases.csv").read_text(), end="")
        case,subject,structure,dice
        a1,a,LV,0.5
        a1,a,mean,0.5
    """
    document = {"about": about, "summary": summarize(rows), "cases": rows}
    write_json(Path(directory, "metrics.json"), document)
    with atomic_write(Path(directory, "cases.csv")) as file:
        file.write(_csv_text(rows))


def format_summary(
    summary: Sequence[Mapping[str, Any]], metrics: Sequence[str] = ("dice", "jaccard", "hd95_mm", "asd_mm")
) -> Table:
    """Table for the terminal: a row a structure, a column a metric, cells ``mean [low, high] (n NaN)``.

    Args:
        summary: What :func:`summarize` returns.
        metrics: Metrics to show, in order; their names carry the units.

    Returns:
        The table; the number of NaN cases is noted where there are any.

    Raises:
        KeyError: ``metrics`` has a name that ``summary`` lacks.

    Example:
        >>> rows = [{"case": c, "subject": c, "structure": "LV", "dice": d} for c, d in (("a", 0.9), ("b", 0.9))]
        >>> list(format_summary(summarize(rows), metrics=("dice",)).columns[1].cells)
        [<text '0.900 [0.900, 0.900]' [] ''>]
    """
    entries = {(row["structure"], row["metric"]): row for row in summary}
    table = Table("structure", *metrics)
    for structure in dict.fromkeys(row["structure"] for row in summary):
        cells = (_cell(entries[structure, metric]) for metric in metrics)
        # Text, not str: rich would take "[nan, nan]" for markup and swallow it.
        table.add_row(Text(structure), *map(Text, cells))
    return table


def _summary_row(structure: str, metric: str, rows: Sequence[CaseRow]) -> dict[str, Any]:
    means = [*subject_means((row["subject"], row[metric]) for row in rows).values()]
    low, high = mean_interval(means, metric in FRACTIONS)
    mean = fmean(means) if means else math.nan
    counts = {"cases": len(rows), "subjects": len(means), "nan": sum(math.isnan(row[metric]) for row in rows)}
    return {"structure": structure, "metric": metric, "mean": mean, "low": low, "high": high, **counts}


def _metric_names(rows: Iterable[CaseRow]) -> list[str]:
    return [name for name in dict.fromkeys(key for row in rows for key in row) if name not in _KEYS]


def _cell(entry: Mapping[str, Any]) -> str:
    note = f" ({entry['nan']} NaN)" if entry["nan"] else ""
    return f"{entry['mean']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]{note}"


def _csv_text(rows: Sequence[CaseRow]) -> str:
    names = _metric_names(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow((*_KEYS, *names))
    writer.writerows((*(row[key] for key in _KEYS), *(f"{row[name]:.6g}" for name in names)) for row in rows)
    return buffer.getvalue()
