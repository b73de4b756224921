# SPDX-License-Identifier: Apache-2.0
"""Pictures of segmentations and of region maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

__all__ = ["overlay_figure"]

REGION_NAMES = ("unanimous, confident", "unanimous, suspicious", "discrepant, confident", "discrepant, suspicious")
_REGION_COLORS = ("#f2f2f2", "#7fbf7b", "#d73027", "#fdae61")
_STRUCTURE_COLORS = ("#00000000", "#e41a1c", "#4daf4a", "#377eb8", "#984ea3", "#ff7f00", "#ffff33", "#a65628")


def overlay_figure(
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    regions: Sequence[np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """Draw one row a sample: image, truth, prediction and, where given, the region map.

    Args:
        images: gray images, each ``(H, W)``.
        truths: annotated class indices, each ``(H, W)``.
        predictions: predicted class indices, each ``(H, W)``.
        regions: :class:`~metassl_monai.losses.Region` values, each ``(H, W)``.
        title: title of the figure.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    headings = ["image", "truth", "prediction"] + (["regions"] if regions is not None else [])
    figure = Figure(figsize=(2.4 * len(headings), 2.4 * len(images) + 0.7), layout="constrained")
    grid = figure.subplots(len(images), len(headings), squeeze=False)
    for row, axes in enumerate(grid):
        for ax in axes:
            ax.set_axis_off()
            ax.imshow(images[row].T, cmap="gray", origin="lower")
        _draw_classes(axes[1], truths[row])
        _draw_classes(axes[2], predictions[row])
        if regions is not None:
            norm = BoundaryNorm(np.arange(5) - 0.5, 4)
            axes[3].imshow(regions[row].T, cmap=ListedColormap(_REGION_COLORS), norm=norm, origin="lower")
    for ax, heading in zip(grid[0], headings, strict=True):
        ax.set_title(heading, fontsize=9)
    if regions is not None:
        patches = [Patch(color=c, label=name) for c, name in zip(_REGION_COLORS, REGION_NAMES, strict=True)]
        figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_classes(ax: Axes, classes: np.ndarray) -> None:
    colors = ListedColormap(_STRUCTURE_COLORS)
    ax.imshow(classes.T, cmap=colors, vmin=0, vmax=len(_STRUCTURE_COLORS) - 1, alpha=0.6, origin="lower")
