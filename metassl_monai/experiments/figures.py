# SPDX-License-Identifier: Apache-2.0
"""The bars of an experiment (MetaSSL, Fig. 1): a bar a row, its runs as dots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .runs import Run, mean_score

__all__ = ["dice_figure"]

_PRESET_COLORS = {"plain": "#969696", "paper": "#3182bd"}
_OTHER_COLOR = "#9ecae1"


def dice_figure(rows: Mapping[str, Sequence[Run]], title: str = "") -> Figure:
    """Draw the mean Dice of each row over its runs, and every run as a dot.

    Args:
        rows: the runs of each row, in the order of the bars from above.
        title: title of the figure.

    Returns:
        A figure; ``figure.savefig(path)`` writes it. Bars of a method's own losses are gray, those of MetaSSL blue, and
        those of the preset ``paper`` dark.
    """
    figure = Figure(figsize=(6, 0.28 * len(rows) + 1), layout="constrained")
    ax = figure.subplots()
    for place, runs in enumerate(rows.values()):
        scores = [mean_score(run) for run in runs]
        color = _PRESET_COLORS.get(runs[0]["settings"]["preset"], _OTHER_COLOR)
        ax.barh(place, sum(scores) / len(scores), color=color, height=0.7)
        ax.plot(scores, [place] * len(scores), "o", color="black", markersize=3)
    ax.set_yticks(range(len(rows)), list(rows), fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("mean Dice", fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_title(title, fontsize=9)
    return figure
