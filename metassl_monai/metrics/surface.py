# SPDX-License-Identifier: Apache-2.0
"""Distances between the surfaces of two binary masks, in the convention of medpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["check_geometry", "surface_distances"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


def surface_distances(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    spacing: Sequence[float] | None = None,
    missing: npt.ArrayLike | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Distance from every surface voxel of each mask to the nearest surface voxel of the other.

    A surface voxel is a voxel of the mask that one binary erosion with the 6-neighborhood (4-neighborhood in 2D)
    removes; what lies beyond the border of the array counts as outside the mask. This is the definition of
    ``medpy.metric.binary`` (its private ``__surface_distances`` with ``connectivity=1``), with which most published
    semi-supervised segmentation results are computed.

    Args:
        prediction: Boolean mask of shape (H, W) or (H, W, D); a numpy array or a CPU torch tensor.
        truth: Boolean mask of the same shape.
        spacing: Size of a voxel along each array axis in mm, in the order of the axes. None measures in voxels.
        missing: Where nothing is known of either, outside of both masks: a voxel whose only neighbors outside of its
            mask lie there is none of the surface. None where all is known.

    Returns:
        Two arrays of shape (surface voxels of ``prediction``,) and (surface voxels of ``truth``,): the distances from
        ``prediction`` to ``truth`` and from ``truth`` to ``prediction``, in mm where ``spacing`` is given, else in
        voxels. The array of an empty mask has length 0; distances to an empty mask are infinite, the infimum over no
        points. What these cases are worth is decided in :func:`metassl_monai.metrics.segmentation_metrics`.

    Raises:
        ValueError: The shapes differ, the masks are neither 2D nor 3D, or ``spacing`` does not fit them.

    Example:
        >>> import numpy as np
        >>> prediction, truth = np.zeros((1, 5), dtype=bool), np.zeros((1, 5), dtype=bool)
        >>> prediction[0, 0], truth[0, 3] = True, True
        >>> forward, backward = surface_distances(prediction, truth, spacing=(1.0, 0.5))
        >>> forward.tolist(), backward.tolist()
        ([1.5], [1.5])
    """
    prediction_mask, truth_mask = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    check_geometry(prediction_mask.shape, truth_mask.shape, spacing)
    if missing is None:
        prediction_mask, truth_mask = _crop_to_union(prediction_mask, truth_mask)
        missing = False
    prediction_surface, truth_surface = _surface(prediction_mask, missing), _surface(truth_mask, missing)
    return (
        _distances(prediction_surface, truth_surface, spacing),
        _distances(truth_surface, prediction_surface, spacing),
    )


def check_geometry(
    prediction_shape: tuple[int, ...], truth_shape: tuple[int, ...], spacing: Sequence[float] | None
) -> None:
    """Refuse shapes and spacings that cannot be compared.

    Args:
        prediction_shape: Shape of the prediction.
        truth_shape: Shape of the ground truth.
        spacing: Size of a voxel along each axis in mm, or None.

    Raises:
        ValueError: The shapes differ, are neither 2D nor 3D, or ``spacing`` is not one positive finite number an axis.

    Example:
        >>> check_geometry((4, 4), (4, 4), (1.0, 1.0))
    """
    if prediction_shape != truth_shape:
        raise ValueError(
            f"prediction has shape {prediction_shape} but truth has shape {truth_shape}: "
            "resample the prediction to the grid of the truth before measuring"
        )
    if len(truth_shape) not in (2, 3):
        raise ValueError(
            f"prediction and truth have shape {truth_shape}, which is neither 2D nor 3D: "
            "pass one case at a time, without batch and channel axes"
        )
    if spacing is not None:
        _check_spacing(spacing, truth_shape)


def _check_spacing(spacing: Sequence[float], shape: tuple[int, ...]) -> None:
    if np.shape(spacing) != (len(shape),):
        raise ValueError(
            f"spacing {spacing} does not match truth of shape {shape}: give {len(shape)} numbers in mm, one an axis"
        )
    if not all(np.isfinite(size) and size > 0 for size in spacing):
        raise ValueError(
            f"spacing {spacing} has an entry that is not a positive finite number: "
            "give the voxel size in mm, e.g. the absolute zooms of the image header"
        )


def _crop_to_union(prediction: BoolArray, truth: BoolArray) -> tuple[BoolArray, BoolArray]:
    # Exact, not an approximation. Erosion: a voxel at the edge of the crop has its outer neighbor either beyond the
    # array or in the background of both masks; both count as outside, and so does the edge of the cropped array.
    # Distances: they are taken between surface voxels only, and all of those, of both masks, lie within the crop.
    boxes = ndimage.find_objects((prediction | truth).astype(np.uint8))
    if not boxes:
        return prediction, truth
    return prediction[boxes[0]], truth[boxes[0]]


def _surface(mask: BoolArray, missing: npt.ArrayLike) -> BoolArray:
    neighborhood = ndimage.generate_binary_structure(mask.ndim, connectivity=1)
    inner = ndimage.binary_erosion(mask | np.asarray(missing), structure=neighborhood, border_value=0)
    return np.asarray(mask & ~inner)


def _distances(source: BoolArray, target: BoolArray, spacing: Sequence[float] | None) -> FloatArray:
    if not target.any():
        # scipy's transform has no zero to measure to here and returns meaningless finite numbers.
        return np.full(np.count_nonzero(source), np.inf)
    transform = ndimage.distance_transform_edt(~target, sampling=spacing)
    return np.asarray(transform[source], dtype=np.float64)
