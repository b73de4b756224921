# SPDX-License-Identifier: Apache-2.0
"""What an experiment is: a grid of rows, labeled subsets and seeds over one bundle, read from a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metassl_monai.data import READERS
from metassl_monai.losses.presets import PRESETS

from .bundles import bundle_path, config_files
from .errors import UserError

__all__ = ["Cell", "read_experiment", "select"]

_COMMON = {"title", "about", "bundle", "reader", "labeled", "subsets", "seeds", "split", "rows"}
_KNOWN = {*_COMMON, "prepare", "overlays", "overrides", "methods", "baselines"}
_KNOWN_OF_A_ROW = {"name", "about", "method", "preset", "overlays", "overrides"}


@dataclass(frozen=True)
class Cell:
    """One run: a row of an experiment, trained on one labeled subset with one seed."""

    experiment: str
    row: str
    method: str
    preset: str
    """A preset of MetaSSL, or ``"plain"`` for the method's own losses."""
    labeled: int
    """Number of labeled subjects."""
    subset: str
    """Which ones: the ``--seed`` of ``metassl prepare``."""
    seed: int
    """Of the training."""
    bundle: str
    reader: str
    prepare: Mapping[str, int]
    """Further options of ``metassl prepare``, such as ``validation``."""
    split: str
    overlays: tuple[str, ...]
    overrides: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the run's folder and of its result file."""
        return f"{self.row}_{self.labeled}_{self.subset}_{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Return all that the run depends on, in types that JSON has."""
        return {**asdict(self), "overlays": list(self.overlays)}

    def configs(self) -> list[Path]:
        """Return the bundle's config files in their order; the overrides come after them.

        Raises:
            UserError: when the bundle lacks one.
        """
        plain = ["plain"] if self.preset == "plain" else []
        return config_files(bundle_path(self.bundle), ["train", self.method, *plain, *self.overlays])


def read_experiment(path: str | Path) -> list[Cell]:
    """Read an experiment file.

    A JSON object with ``title`` and ``about`` (sentences for the page of results), ``bundle``, ``reader`` (as in
    ``metassl prepare``, whose further options stand in ``prepare``), ``labeled`` (numbers of labeled subjects),
    ``subsets`` (``"published"`` or seeds), ``seeds`` (of the training), ``split`` and ``rows``. A row has a ``method``,
    a ``preset`` (``"plain"`` for the method's own losses) and, where they do not tell it from the others, a ``name``.
    ``overlays`` and ``overrides`` (config ids with their values) may stand at the top, for all rows, in ``methods``
    under the name of a method, and in a row; the later ones win. ``baselines`` names the two presets with which the
    tables compare every row of a method, ``["plain", "paper"]`` if left out.

    Args:
        path: the file; its name without ``.json`` is the name of the experiment.

    Returns:
        The cells: all rows of the first number, subset and seed, then of the next, so that an interrupted experiment
        has compared something.

    Raises:
        UserError: when the file is no experiment, with what is wrong in it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not JSON: {error}.") from None
    _check(path, content)
    cells = [
        _cell(path.stem, content, row, labeled, str(subset), seed)
        for labeled in content["labeled"]
        for seed in content["seeds"]
        for subset in content["subsets"]
        for row in content["rows"]
    ]
    for cell in cells:
        cell.configs()
    return cells


def select(
    cells: Sequence[Cell],
    rows: Sequence[str] = (),
    labeled: Sequence[int] = (),
    subsets: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Cell]:
    """Return the cells of these rows, numbers, subsets and seeds; an empty list of them means all.

    Raises:
        UserError: when the experiment has no row, number, subset or seed of that name.
    """
    for key, wanted in (("row", rows), ("labeled", labeled), ("subset", subsets), ("seed", seeds)):
        known = {str(getattr(cell, key)): cell for cell in cells}
        unknown = [str(value) for value in wanted if str(value) not in known]
        if unknown:
            raise UserError(f"--{key} {unknown[0]}: the experiment has no such one, only {', '.join(known)}.")
        if wanted:
            cells = [cell for cell in cells if getattr(cell, key) in wanted]
    return list(cells)


def _cell(
    experiment: str, content: Mapping[str, Any], row: Mapping[str, Any], labeled: int, subset: str, seed: int
) -> Cell:
    layers = (content, content.get("methods", {}).get(row["method"], {}), row)
    overlays = tuple(name for layer in layers for name in layer.get("overlays", ()))
    overrides = {key: value for layer in layers for key, value in layer.get("overrides", {}).items()}
    common = {key: content[key] for key in ("bundle", "reader", "split")}
    return Cell(
        experiment,
        _row_name(row),
        row["method"],
        row["preset"],
        labeled,
        subset,
        seed,
        prepare=content.get("prepare", {}),
        overlays=overlays,
        overrides=overrides,
        **common,
    )


def _row_name(row: Mapping[str, Any]) -> str:
    return row.get("name", f"{row['method']}-{row['preset']}")


def _check(path: Path, content: Any) -> None:
    wrong = list(_mistakes(content)) if isinstance(content, dict) else ["it must be a JSON object."]
    if wrong:
        raise UserError("\n".join([f"{path}: is no experiment:", *(f"  {mistake}" for mistake in wrong)]))


def _mistakes(content: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{key!r} is missing." for key in sorted(_COMMON - set(content)))
    yield from (
        f"{key!r} is unknown: choose among {', '.join(sorted(_KNOWN))}." for key in sorted(set(content) - _KNOWN)
    )
    if content.get("reader", "acdc") not in READERS:
        yield f"reader {content['reader']!r} is unknown: choose one of {', '.join(sorted(READERS))}."
    if content.get("split", "validation") not in ("validation", "test"):
        yield f"split {content['split']!r} is unknown: choose validation or test."
    rows = content.get("rows", [])
    for row in rows:
        yield from _mistakes_of_a_row(row)
    names = [_row_name(row) for row in rows if {"method", "preset"} <= set(row)]
    yield from (f"two rows are called {name!r}: give one a 'name'." for name in set(names) if names.count(name) > 1)


def _mistakes_of_a_row(row: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"a row lacks {key!r}: {dict(row)}." for key in ("method", "preset") if key not in row)
    yield from (f"{key!r} is unknown in a row." for key in sorted(set(row) - _KNOWN_OF_A_ROW))
    preset = row.get("preset", "plain")
    if preset != "plain" and preset not in PRESETS:
        yield f"preset {preset!r} is unknown: choose plain or one of {', '.join(sorted(PRESETS))}."
