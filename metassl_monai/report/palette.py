# SPDX-License-Identifier: Apache-2.0
"""Colors of regions and of structures, the same in every figure."""

from __future__ import annotations

from typing import Any

from matplotlib import colormaps
from matplotlib.colors import ListedColormap, to_hex

__all__ = ["REGION_COLORS", "REGION_NAMES", "region_colormap", "structure_colormap"]

REGION_NAMES = {
    "UC": "unanimous, confident",
    "US": "unanimous, suspicious",
    "DC": "discrepant, confident",
    "DS": "discrepant, suspicious",
}
REGION_COLORS = {"UC": "#f2f2f2", "US": "#7fbf7b", "DC": "#d73027", "DS": "#fdae61"}
_FIRST = ("#e41a1c", "#4daf4a", "#377eb8", "#984ea3", "#ff7f00", "#ffff33", "#a65628")
_STRUCTURES = tuple(
    dict.fromkeys([*_FIRST, *(to_hex(colormaps[n](i)) for n in ("tab20", "tab20b", "tab20c") for i in range(20))])
)


def region_colormap() -> ListedColormap:
    """Return the colors of regions 0 to 3."""
    return ListedColormap(list(REGION_COLORS.values()))


def structure_colormap(count: int) -> ListedColormap:
    """Return ``count`` colors: none for background, then one for each structure; beyond 67 they begin anew.

    Below 0, where nobody annotated, it is gray.

    Args:
        count: number of classes, background included.

    Example::

        >>> from metassl_monai.report.palette import structure_colormap
        >>> structure_colormap(3).colors
        ['#00000000', '#e41a1c', '#4daf4a']
    """
    colors = ["#00000000", *(_STRUCTURES[c % len(_STRUCTURES)] for c in range(count - 1))]
    colormap: Any = ListedColormap(colors).with_extremes(under="#808080")
    found: ListedColormap = colormap
    return found
