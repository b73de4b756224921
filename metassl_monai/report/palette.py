# SPDX-License-Identifier: Apache-2.0
"""Colors of regions and of structures, the same in every figure."""

from __future__ import annotations

from typing import Any

from matplotlib import colormaps
from matplotlib.colors import ListedColormap, to_hex

__all__ = ["REGION_COLORS", "REGION_NAMES", "region_colormap", "structure_color", "structure_colormap"]

REGION_NAMES = {
    "UC": "unanimous, confident",
    "US": "unanimous, suspicious",
    "DC": "discrepant, confident",
    "DS": "discrepant, suspicious",
}
REGION_COLORS = {"UC": "#f0f0f0", "US": "#8a84bd", "DC": "#5e3c99", "DS": "#1d0036"}
"""From light to dark, to be told apart in print and whatever colors a reader sees; no structure has them."""

# told apart by color-blind readers, and seen on white paper as on black and gray images
_FIRST = ("#d55e00", "#3b6fe3", "#00a66e", "#aa4499", "#997700", "#cc6677", "#5e8c31")
_STRUCTURES = tuple(
    dict.fromkeys([*_FIRST, *(to_hex(colormaps[n](i)) for n in ("tab20", "tab20b", "tab20c") for i in range(20))])
)


def region_colormap() -> ListedColormap:
    """Return the colors of regions 0 to 3."""
    return ListedColormap(list(REGION_COLORS.values()))


def structure_color(value: int) -> str:
    """Return the color of the structure with this class value, which is at least 1.

    Example::

        >>> structure_color(1)
        '#d55e00'
    """
    return _STRUCTURES[(value - 1) % len(_STRUCTURES)]


def structure_colormap(count: int) -> ListedColormap:
    """Return ``count`` colors: none for background, then one for each structure; beyond 67 they begin anew.

    Below 0, where nobody annotated, it is gray.

    Args:
        count: number of classes, background included.

    Example::

        >>> from metassl_monai.report.palette import structure_colormap
        >>> structure_colormap(3).colors
        ['#00000000', '#d55e00', '#3b6fe3']
    """
    colors = ["#00000000", *(structure_color(c) for c in range(1, count))]
    colormap: Any = ListedColormap(colors).with_extremes(under="#808080")
    found: ListedColormap = colormap
    return found
