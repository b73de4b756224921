# SPDX-License-Identifier: Apache-2.0
"""Pictures of segmentations and of region maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .palette import REGION_COLORS, REGION_NAMES, region_colormap, structure_color, structure_colormap

__all__ = ["NO_REGION", "methods_figure", "overlay_figure", "quadripartition_figure"]

NO_REGION = 255
"""Value in a region map of a pixel that no loss looked at; the image shows through there."""

Images = Sequence[np.ndarray]
Labels = Mapping[str, str]
"""Name of each class value, background ``"0"`` included, as configs have it."""

_LEGEND_INCHES = 1.7
_ROW_WIDTH = 28
_PANEL = 2.4
"""Width of a panel in inches."""
_LOWEST, _HIGHEST = 0.6, 2.0
"""Height of a panel for its width, at least that the name of the row fits beside it."""
_FILL = 0.2
"""Opacity inside the contour of a structure: the image, and so the border to be judged, shows through."""


def overlay_figure(
    images: Images,
    truths: Images,
    predictions: Images,
    regions: Images | None = None,
    title: str = "",
    truth_name: str = "truth",
    rows: Sequence[str] = (),
    labels: Labels | None = None,
) -> Figure:
    """Draw one row a sample: image, truth, prediction and, where given, the region map.

    With an annotation as truth, this is the view of annotation noise (MetaSSL, Fig. 12).

    Args:
        images: gray images, each ``(H, W)``.
        truths: annotated class indices, each ``(H, W)``.
        predictions: predicted class indices, each ``(H, W)``.
        regions: :class:`~metassl_monai.losses.Region` values, each ``(H, W)``; :data:`NO_REGION` is left blank.
        title: title of the figure.
        truth_name: heading of the truths.
        rows: what to write beside each row, such as the number of the slice.
        labels: name of each class value, for a legend; None makes none.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    return _panels(images, {truth_name: truths, "prediction": predictions}, regions, rows, title, labels)


def quadripartition_figure(
    images: Images,
    truths: Images | None,
    references: Images,
    predictions: Images,
    regions: Images | None = None,
    rows: Sequence[str] = (),
    title: str = "",
    labels: Labels | None = None,
) -> Figure:
    """Draw one row a sample or an epoch: what the regions of unlabeled images are made of (MetaSSL, Fig. 8 and 11).

    Args:
        images: gray images, each ``(H, W)``.
        truths: hidden annotations, class indices, each ``(H, W)``; None where there are none.
        references: labels of the reference, each ``(H, W)``.
        predictions: labels of the prediction, each ``(H, W)``.
        regions: see :func:`overlay_figure`.
        rows: what to write beside each row, such as ``"epoch 10"``.
        title: title of the figure.
        labels: name of each class value, for a legend; None makes none.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.

    Example::

        >>> import numpy as np
        >>> from metassl_monai.report import quadripartition_figure
        >>> zeros = [np.zeros((4, 4))]
        >>> figure = quadripartition_figure(zeros, zeros, zeros, zeros, zeros)
        >>> [ax.get_title() for ax in figure.axes]
        ['image', 'hidden truth', 'reference', 'prediction', 'regions']
    """
    columns = {} if truths is None else {"hidden truth": truths}
    columns |= {"reference": references, "prediction": predictions}
    return _panels(images, columns, regions, rows, title, labels)


def methods_figure(
    images: Images,
    maps: Mapping[str, Images],
    rows: Sequence[str] = (),
    title: str = "",
    labels: Labels | None = None,
) -> Figure:
    """Draw one row a case: the image and what each of several methods makes of it (MetaSSL, Fig. 4 to 6).

    Args:
        images: gray images, each ``(H, W)``.
        maps: class indices, each ``(H, W)``, by the heading of their column, from the left.
        rows: what to write beside each row, such as the name of the case.
        title: title of the figure.
        labels: name of each class value, for a legend; None makes none.

    Returns:
        A figure; ``figure.savefig(path)`` writes it. A class has the same color everywhere.

    Example::

        >>> import numpy as np
        >>> from metassl_monai.report import methods_figure
        >>> zeros = [np.zeros((4, 4))]
        >>> figure = methods_figure(zeros, {"annotation": zeros, "plain": zeros, "MetaSSL": zeros}, ["a case"])
        >>> [ax.get_title() for ax in figure.axes]
        ['image', 'annotation', 'plain', 'MetaSSL']
    """
    return _panels(images, maps, None, rows, title, labels)


def _panels(
    images: Images,
    columns: Mapping[str, Images],
    regions: Images | None,
    rows: Sequence[str],
    title: str,
    labels: Labels | None,
) -> Figure:
    headings = ["image", *columns, *(["regions"] if regions is not None else [])]
    heights = [min(max(image.shape[1] / image.shape[0], _LOWEST), _HIGHEST) for image in images]
    figure = Figure(figsize=(_PANEL * len(headings), _PANEL * sum(heights) + 0.7), layout="constrained")
    grid = figure.subplots(len(images), len(headings), squeeze=False, height_ratios=heights)
    highest = max(1, *(int(array.max()) for column in columns.values() for array in column))
    classes = 1 + max([highest, *map(int, labels or ())])
    for row, axes in enumerate(grid):
        for ax in axes:
            ax.set_axis_off()
            ax.imshow(images[row].T, cmap="gray", origin="lower")
        for ax, column in zip(axes[1:], columns.values(), strict=False):  # the map of regions comes last
            _draw_classes(ax, column[row], classes)
        if regions is not None:
            _draw_regions(axes[-1], regions[row])
    for axes, name in zip(grid, _broken(rows), strict=False):
        axes[0].text(-0.05, 0.5, name, transform=axes[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)
    for ax, heading in zip(grid[0], headings, strict=True):
        ax.set_title(heading, fontsize=9)
    _add_legend(figure, labels or {}, regions is not None)
    figure.suptitle(title, fontsize=10)
    return figure


def _broken(rows: Sequence[str]) -> list[str]:
    """Break long names, such as those of whole-slide images, into lines that fit beside a row."""
    return ["\n".join(fill(line, _ROW_WIDTH) for line in name.splitlines()) for name in rows]


def _add_legend(figure: Figure, labels: Labels, with_regions: bool) -> None:
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=structure_color(int(value)), linewidth=2, label=name)
        for value, name in labels.items()
        if int(value) > 0
    ]
    if with_regions:
        entries += [
            Patch(facecolor=REGION_COLORS[name], edgecolor="#636363", linewidth=0.5, label=f"{name}: {text}")
            for name, text in REGION_NAMES.items()
        ]
    if entries:
        columns = max(1, int(figure.get_figwidth() / _LEGEND_INCHES))
        figure.legend(handles=entries, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)


def _draw_classes(ax: Axes, classes: np.ndarray, count: int) -> None:
    colors = structure_colormap(count)
    ax.imshow(classes.T, cmap=colors, norm=_steps(count), alpha=_FILL, interpolation="nearest", origin="lower")
    for value in np.unique(classes[classes > 0]):
        ax.contour((classes == value).T, levels=[0.5], colors=[structure_color(int(value))], linewidths=1.2)


def _draw_regions(ax: Axes, regions: np.ndarray) -> None:
    known = np.ma.masked_greater_equal(regions.T, len(REGION_NAMES))
    norm = _steps(len(REGION_NAMES))
    ax.imshow(known, cmap=region_colormap(), norm=norm, interpolation="nearest", origin="lower")


def _steps(count: int) -> BoundaryNorm:
    return BoundaryNorm(np.arange(count + 1) - 0.5, count)
