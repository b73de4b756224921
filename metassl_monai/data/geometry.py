# SPDX-License-Identifier: Apache-2.0
"""When two images lie on the same grid of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

__all__ = ["SAME_GRID", "grid_distance"]

SAME_GRID = 0.01
"""Two grids are the same where no corner of a volume lies further apart than this fraction of a voxel."""


def grid_distance(affine: npt.ArrayLike, other: npt.ArrayLike, shape: Sequence[int]) -> float:
    """Return how far apart two affines put the corners of a volume, in voxels of the first one.

    Entries of affines cannot be compared as numbers: 0.002 mm is nothing at an origin, and much in the direction of an
    axis of 500 voxels.

    Args:
        affine: from voxel to world, ``(4, 4)``, or ``(3, 3)`` for an image in the plane.
        other: another one of the same size.
        shape: voxels along each axis; axes that it lacks have one voxel.

    Returns:
        The largest distance along an axis over all outer corners.

    Example:
        >>> import numpy as np
        >>> affine, moved = np.diag([1.5, 1.5, 8.0, 1.0]), np.diag([1.5, 1.5, 8.0, 1.0])
        >>> moved[0, 3] = 0.3
        >>> round(grid_distance(affine, moved, (32, 32, 1)), 6)
        0.2
    """
    first, second = (np.asarray(matrix, dtype=np.float64) for matrix in (affine, other))
    axes = len(first) - 1
    sizes = [*shape, *[1] * axes][:axes]
    corners = np.array([(*corner, 1.0) for corner in product(*((-0.5, size - 0.5) for size in sizes))]).T
    return float(np.abs(np.linalg.solve(first, second @ corners) - corners).max())
