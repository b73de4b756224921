# SPDX-License-Identifier: Apache-2.0
"""What an experiment is: a grid of rows, labeled subsets and seeds over one bundle, read from a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metassl_monai.bundle.command_line import unknown_ids
from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import bundle_command, bundle_path, config_files

from .check import mistakes, row_name
from .runs import Run, read_run

__all__ = ["Cell", "read_experiment", "same_runs", "select"]


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
    inference: tuple[str, ...]
    """Overlays of ``inference.json``; they change pictures and no result, so they are no setting."""

    @property
    def name(self) -> str:
        """Name of the run's folder and of its result file."""
        return f"{self.row}_{self.labeled}_{self.subset}_{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Return all that the run depends on, in types that JSON has."""
        settings = {**asdict(self), "overlays": list(self.overlays), "bundle": Path(self.bundle).name}
        del settings["inference"]
        return settings

    def configs(self) -> list[Path]:
        """Return the bundle's config files in their order; the overrides come after them.

        Raises:
            UserError: when the bundle lacks one.
        """
        plain = ["plain"] if self.preset == "plain" else []
        return config_files(bundle_path(self.bundle), ["train", self.method, *plain, *self.overlays])

    def inference_configs(self) -> list[Path]:
        """Return the bundle's config files that segment with the trained network, in their order.

        Raises:
            UserError: when the bundle lacks one.
        """
        return config_files(bundle_path(self.bundle), ["inference", *self.inference])


def read_experiment(path: str | Path) -> list[Cell]:
    """Read an experiment file.

    A JSON object with ``title`` and ``about`` (sentences for the page of results), ``bundle``, ``reader`` (as in
    ``metassl prepare``, whose further options stand in ``prepare``), ``labeled`` (numbers of labeled subjects),
    ``subsets`` (``"published"`` or seeds), ``seeds`` (of the training), ``split``, ``checkpoint`` (which network is
    scored: the ``"last"``, or the ``"best"`` of the validation) and ``rows``. A row has a ``method``, a ``preset``
    (``"plain"`` for the method's own losses) and, where they do not tell it from the others, a ``name``. ``overlays``
    and ``overrides`` (config ids with their values) may stand at the top, for all rows, in ``methods`` under the name
    of a method, and in a row; the later ones win. Overlays at the top are for inference, too; a method whose exported
    network is another than the bundle's names those that build it in ``inference``. ``baselines`` names
    what the tables compare every row with: rows, and presets, which mean the row's method with that preset;
    ``["plain", "paper"]`` if left out.

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
    except ValueError as error:
        raise UserError(f"{path}: is not JSON: {error}.") from None
    _refuse(path, mistakes(content))
    cells = [
        _cell(path.stem, content, row, labeled, str(subset), seed)
        for labeled in content["labeled"]
        for seed in content["seeds"]
        for subset in content["subsets"]
        for row in content["rows"]
    ]
    _refuse(path, _unknown_overrides(cells))
    return cells


def _refuse(path: Path, wrong: Sequence[str]) -> None:
    if wrong:
        raise UserError("\n".join([f"{path}: is no experiment:", *(f"  {mistake}" for mistake in wrong)]))


def _unknown_overrides(cells: Sequence[Cell]) -> list[str]:
    """Return a message for each override that no config of its row has: MONAI would accept it in silence."""
    found = []
    for row, cell in {cell.row: cell for cell in cells}.items():
        cell.inference_configs()
        command = bundle_command("training", cell.configs())[3:]
        flags = [f"--{key}=" for key in cell.overrides]
        found += [
            f"row {row!r}: {message[2:]}" for message in unknown_ids(["monai/bundle/__main__.py", *command, *flags])
        ]
    return found


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


def same_runs(cell: Cell, results: Path) -> Iterator[tuple[str, Run]]:
    """Yield the name of the experiment and the run of each result that differs from the cell's in that name at most."""
    for file in results.glob(f"*/{cell.name}.json"):
        run = read_run(file)
        if {**run["settings"], "experiment": cell.experiment} == cell.settings():
            yield file.parent.name, run


def _cell(
    experiment: str, content: Mapping[str, Any], row: Mapping[str, Any], labeled: int, subset: str, seed: int
) -> Cell:
    of_method = content.get("methods", {}).get(row["method"], {})
    layers = ({"overrides": {"keep": content["checkpoint"]}}, content, of_method, row)
    overlays = tuple(name for layer in layers for name in layer.get("overlays", ()))
    overrides = {key: value for layer in layers for key, value in layer.get("overrides", {}).items()}
    common = {key: content[key] for key in ("bundle", "reader", "split")}
    return Cell(
        experiment,
        row_name(row),
        row["method"],
        row["preset"],
        labeled,
        subset,
        seed,
        prepare=content.get("prepare", {}),
        overlays=overlays,
        overrides=overrides,
        inference=(*content.get("overlays", ()), *of_method.get("inference", ())),
        **common,
    )
