# SPDX-License-Identifier: Apache-2.0
"""Curves of a training, and the weight function that they come from."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .palette import REGION_COLORS, structure_color
from .words import curve_name, panel_name

__all__ = ["history_figure", "history_panels", "read_history", "weight_figure"]

History = Mapping[str, Sequence[float]]
"""Values of each metric by epoch, beside the column ``epoch``; NaN where an epoch has none."""

_COLUMNS = 3
_TITLE_WIDTH = 50
# The light gray of UC in maps cannot be seen as a line on white.
_LINE_COLORS = {**REGION_COLORS, "UC": "#636363"}
_REGION_ORDER = {name: rank for rank, name in enumerate(REGION_COLORS)}
_MARKERS = "osD^vP*X"


def read_history(path: str | Path) -> dict[str, list[float]]:
    """Read the ``history.csv`` of a training.

    Args:
        path: the file.

    Returns:
        The columns by name, NaN where a cell is empty.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        columns: dict[str, list[float]] = {name: [] for name in rows.fieldnames or ()}
        for row in rows:
            for name, values in columns.items():
                values.append(float(row[name] or "nan"))
    return columns


def history_panels(history: History, prefix: str) -> dict[str, list[str]]:
    """Return the metrics under a prefix by what they have in common: all but their last part.

    Example::

        >>> history_panels({"epoch": [1], "loss": [2], "loss/labeled/a": [1], "loss/labeled/b": [1]}, "loss")
        {'': ['loss'], 'loss/labeled': ['loss/labeled/a', 'loss/labeled/b']}
    """
    panels: dict[str, list[str]] = {}
    for name in history:
        if name != "epoch" and fnmatchcase(name, f"{prefix}*"):
            panels.setdefault(name.rpartition("/")[0], []).append(name)
    return dict(sorted(panels.items()))


def history_figure(
    history: History, prefix: str, title: str, ylabel: str, labels: Mapping[str, str] | None = None
) -> Figure:
    """Draw every metric under a prefix over the epochs: one panel for all that differ in their last part only.

    So ``"pixels/unlabeled"`` gives a panel for each pair, with a curve for each region (MetaSSL, Fig. 9 and 10), all on
    one vertical axis.

    Args:
        history: see :func:`read_history`.
        prefix: beginning of the names; ``*`` stands for anything, as in ``"hidden/*/accuracy"``.
        title: title of the figure.
        ylabel: what the metrics measure.
        labels: name of each class value, for curves by class.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: when no metric has this prefix.

    Example::

        >>> history = {"epoch": [1, 2], "regions/labeled/net/UC": [.5, .6], "regions/labeled/net/DS": [.5, .4]}
        >>> [ax.get_title() for ax in history_figure(history, "regions", "", "fraction").axes]
        ['share of the voxels: labeled, net']
    """
    panels = history_panels(history, prefix)
    if not panels:
        raise ValueError(f"no metric begins with {prefix!r}.")
    columns = min(len(panels), _COLUMNS)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for ax, (panel, names) in zip(grid, panels.items(), strict=False):
        _draw_curves(ax, history, names, labels or {})
        ax.set_title(fill(panel_name(panel or names[0]), _TITLE_WIDTH), fontsize=9)
        ax.set_ylabel(ylabel, fontsize=8)
    for ax in grid[len(panels) :]:
        ax.remove()
    figure.suptitle(title, fontsize=10)
    return figure


def weight_figure(
    phi: Callable[[np.ndarray, float], np.ndarray],
    betas: Sequence[float] = (1, 2, 3),
    deltas: Sequence[float] = (0.3, 0.6),
) -> Figure:
    """Draw a weight function for several exponents, and on the last one the weights of the four ranks (Fig. 3).

    Args:
        phi: the weight function, called as ``phi(u, beta)``.
        betas: its exponents, one curve each.
        deltas: steps between two ranks, one set of markers each.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.

    Example::

        >>> import numpy as np
        >>> from metassl_monai.report import weight_figure
        >>> figure = weight_figure(lambda u, beta: np.exp(-(u**beta)), betas=(1, 3), deltas=(0.6,))
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['β = 1', 'β = 3', 'δ = 0.6']
    """
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    ax = figure.subplots()
    u = np.linspace(0, 2, 201)
    for beta in betas:
        ax.plot(u, phi(u, beta), label=f"β = {beta:g}")
    for delta, marker in zip(deltas, itertools.cycle(_MARKERS), strict=False):
        ranks = delta * np.arange(4)
        ax.plot(ranks, phi(ranks, betas[-1]), marker, color="black", fillstyle="none", label=f"δ = {delta:g}")
    ax.set_xlabel("u = rank · δ")
    ax.set_ylabel("weight φ(u)")
    ax.legend(fontsize=8)
    return figure


def _draw_curves(ax: Axes, history: History, names: Sequence[str], labels: Mapping[str, str]) -> None:
    epochs = np.asarray(history["epoch"])
    # a region that was empty at first is a late column of the table
    ordered = sorted(names, key=lambda name: _REGION_ORDER.get(name.rpartition("/")[2], 0))
    for name, marker in zip(ordered, itertools.cycle(_MARKERS), strict=False):
        values = np.asarray(history[name])
        known = ~np.isnan(values)  # without the gaps, across which no line would be drawn
        style: dict[str, Any] = {"marker": marker, "markersize": 4, "linewidth": 1, "color": _line_color(name, labels)}
        ax.plot(epochs[known], values[known], label=curve_name(name, labels), **style)
    ax.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("epoch", fontsize=8)
    ax.tick_params(labelsize=7, labelleft=True)
    ax.grid(color="#e5e5e5", linewidth=0.5)
    ax.legend(fontsize=7)


def _line_color(name: str, labels: Mapping[str, str]) -> str | None:
    """Return the color of a region or of a structure, as in pictures; None for anything else."""
    last = name.rpartition("/")[2]
    values = {key: int(value) for value, label in labels.items() for key in (value, label.replace(" ", "_"))}
    if values.get(last, 0) > 0:
        return structure_color(values[last])
    return "#595959" if last in values else _LINE_COLORS.get(last)
