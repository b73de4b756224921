# SPDX-License-Identifier: Apache-2.0
"""Compares two evaluations of the same cases."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.writable import check_writable_file
from metassl_monai.files import nan_for_null, write_json
from metassl_monai.report import compare_cases, format_comparison

from .show import show_json, show_table

__all__ = ["compare_evaluations", "is_outdated", "show_comparison", "verdict", "verdicts"]

_KEYS = {"case", "subject", "structure"}


def compare_evaluations(
    a: str | Path, b: str | Path, metrics: Sequence[str], out: str | Path | None = None
) -> list[dict[str, Any]]:
    """Compare two tables that an evaluation wrote; warn on stderr where they name different datalists.

    Args:
        a: a ``metrics.json``, its folder, or the output folder of a run that holds one folder ``evaluation*`` with it.
        b: the same of the other.
        metrics: names of the metrics, such as ``"dice"``.
        out: JSON file of the result, ``{"a": file, "b": file, "rows": [...]}`` with ``null`` for NaN.

    Returns:
        The rows, see :func:`metassl_monai.report.compare_cases`.

    Raises:
        UserError: when a table is missing or is none, the two are of different splits, cases or structures, a metric
            is unknown, or ``out`` is one of the tables or cannot be written.
    """
    files = [_table_file(Path(path)) for path in (a, b)]
    tables = [_read_table(file) for file in files]
    _compare_sources(*(table.get("about") or {} for table in tables))
    if out is not None:
        _check_out(Path(out), files)
    try:
        rows = compare_cases(nan_for_null(tables[0]["cases"]), nan_for_null(tables[1]["cases"]), metrics)
    except ValueError as error:
        raise UserError(f"A is {files[0]}, B is {files[1]}: {error}.") from None
    if out is not None:
        write_json(out, {"a": str(files[0]), "b": str(files[1]), "rows": rows})
    return rows


def verdict(row: Mapping[str, Any], a: str = "A", b: str = "B") -> str:
    """Say in one sentence which is higher, by how much, and whether that is more than chance: ``p_holm`` below 0.05.

    Args:
        row: a row of :func:`metassl_monai.report.compare_cases`.
        a: what the first evaluation is called.
        b: what the second one is called.

    Example:
        >>> from metassl_monai.report import paired_comparison
        >>> row = {"structure": "mean", "metric": "dice", **paired_comparison([-3, -2, -1])._asdict()}
        >>> print(verdict({**row, "p_holm": 0.25, "tests": 1}))
        mean dice: B is higher by 2.000 [-0.484, 4.484], no more than chance explains (Holm-corrected Wilcoxon p = \
0.25); 3 subjects are too few for this test to show anything.
    """
    n, name = row["n"], f"{row['structure']} {row['metric']}"
    if n < 2:
        return f"{name}: not compared, since fewer than 2 subjects have a value in both."
    if row["mean"] == 0:
        return f"{name}: {a} and {b} have the same mean over {n} subjects."
    higher, low, high = (a, row["low"], row["high"]) if row["mean"] > 0 else (b, -row["high"], -row["low"])
    chance = "more than chance" if row["p_holm"] < 0.05 else "no more than chance explains"
    # n signs, all alike, give the smallest p, and the smallest of all tests is multiplied by their number
    if 2.0 ** (1 - n) * row["tests"] >= 0.05:
        power = "are too few for this test to show anything"
    else:
        power = f"could have shown a difference of {row['detectable']:.3f}"
    return (
        f"{name}: {higher} is higher by {abs(row['mean']):.3f} [{low:.3f}, {high:.3f}], {chance} "
        f"(Holm-corrected Wilcoxon p = {row['p_holm']:.2g}); {n} subjects {power}."
    )


def verdicts(rows: Sequence[Mapping[str, Any]], a: str = "A", b: str = "B") -> str:
    """Join the :func:`verdict` on the mean over the structures in each metric, one a line."""
    return "\n".join(verdict(row, a, b) for row in rows if row["structure"] == "mean")


def show_comparison(rows: Sequence[Mapping[str, Any]], as_json: bool = False) -> None:
    """Print the rows of :func:`compare_evaluations` as a table with :func:`verdicts`, or as JSON."""
    if as_json:
        show_json(rows)
    else:
        show_table(format_comparison(rows), verdicts(rows))


def is_outdated(table: Path, run: Path) -> bool:
    """Say whether a table of scores is older than the network of the run: it is of one that was overwritten."""
    network = run / "models" / "model.pt"
    return network.is_file() and network.stat().st_mtime > table.stat().st_mtime


def _table_file(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder. Name what evaluate wrote to.")
    if path.is_file() or (path / "metrics.json").is_file():
        return path if path.is_file() else path / "metrics.json"
    found = sorted(path.glob("evaluation*/metrics.json"))
    if len(found) > 1:
        raise UserError(
            f"{path}: holds several evaluations, name one: {', '.join(file.parent.name for file in found)}."
        )
    if not found:
        raise UserError(f"{path}: neither this folder nor evaluation* in it holds metrics.json. Run evaluate first.")
    if is_outdated(found[0], path):
        raise UserError(f"{found[0]}: is older than the network in {path}: run evaluate, or metassl report, once more.")
    return found[0]


def _read_table(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}). Name the metrics.json of an evaluation.") from None
    if not _is_table(table):
        raise UserError(f"{file}: is not a table of cases. Name the metrics.json of an evaluation.")
    content: dict[str, Any] = table
    return content


def _is_table(table: Any) -> bool:
    return (
        isinstance(table, dict)
        and isinstance(table.get("about"), dict | None)
        and isinstance(table.get("cases"), list)
        and table["cases"] != []
        and all(isinstance(row, dict) and row.keys() >= _KEYS and _has_numbers(row) for row in table["cases"])
    )


def _has_numbers(row: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str if key in _KEYS else float | int | None) for key, value in row.items())


def _compare_sources(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Refuse different splits, warn of different datalists; a bundle's own evaluation names neither."""
    if "split" in a and "split" in b and a["split"] != b["split"]:
        raise UserError(f"A scores the split {a['split']}, B the split {b['split']}: evaluate both on the same one.")
    if "datalist" in a and "datalist" in b and a["datalist"] != b["datalist"]:
        sys.stderr.write(
            f"warning: A was evaluated with {a['datalist']}, B with {b['datalist']}: where these differ in what was "
            "labeled for training, so do the runs.\n"
        )


def _check_out(out: Path, files: Sequence[Path]) -> None:
    if out.resolve() in [file.resolve() for file in files]:
        raise UserError(f"--out {out}: is one of the tables that are compared, choose another file.")
    check_writable_file(out)
