# SPDX-License-Identifier: Apache-2.0
"""Segmentation metrics of one case, per structure, in the convention of medpy 0.4."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from metassl_monai.ignore import IGNORE
from metassl_monai.metrics.surface import BoolArray, check_geometry, surface_distances

__all__ = ["METRIC_NAMES", "dice_by_structure", "label_map", "segmentation_metrics"]

METRIC_NAMES = ("dice", "jaccard", "hd95_mm", "asd_mm", "assd_mm", "hd95_voxel", "asd_voxel", "assd_voxel")
"""Keys of every structure's metrics, in order; a distance carries its unit in its name."""


def segmentation_metrics(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    labels: Mapping[int, str] | Mapping[str, str],
    spacing: Sequence[float] | None = None,
) -> dict[str, dict[str, float]]:
    """Compare two label maps, structure by structure.

    =========================== ============== ======================================================================
    key                         unit           definition
    =========================== ============== ======================================================================
    ``dice``                    1 (0 to 1)     ``2 |P and T| / (|P| + |T|)`` (Dice, 1945)
    ``jaccard``                 1 (0 to 1)     ``|P and T| / |P or T|`` (Jaccard, 1912)
    ``hd95_mm``, ``hd95_voxel`` mm, voxels     95th percentile of the pooled surface distances of both directions
    ``asd_mm``, ``asd_voxel``   mm, voxels     mean surface distance from prediction to truth (directed)
    ``assd_mm``, ``assd_voxel`` mm, voxels     mean of the two directed mean surface distances
    =========================== ============== ======================================================================

    The distances follow ``medpy.metric.binary`` (``hd95``, ``asd``, ``assd``), with which UA-MT (Yu et al., MICCAI
    2019), the SSL4MIS benchmark and the work built on them report. ``assd`` is that of medpy up to version 0.4;
    version 0.5 (2024) takes the mean of the pooled distances instead. MONAI's ``compute_hausdorff_distance`` differs
    from ``hd95``: it takes the larger of two directed percentiles. Some tables are in mm and some in voxels, so both
    are given and the unit is part of the key. ``asd`` is blind to parts of the truth that the prediction misses;
    ``assd`` is not.

    Empty masks have one fixed meaning (published evaluation scripts put in numbers such as 0 or 50 instead):

    ================== ======================= ==========
    empty              ``dice``, ``jaccard``   distances
    ================== ======================= ==========
    neither            measured                measured
    exactly one        0                       NaN
    both               NaN                     NaN
    ================== ======================= ==========

    Where nobody annotated, prediction and truth are left out: such voxels are in no structure, and they make no
    surface of the voxels beside them, as the last annotated slice of a volume would have. A structure all of whose
    annotated voxels lie inside it has no surface: its distances are NaN.

    Args:
        prediction: Label map of shape (H, W) or (H, W, D); a numpy array or a CPU torch tensor of whole numbers.
        truth: Label map of the same shape; :data:`~metassl_monai.ignore.IGNORE` where nobody annotated.
        labels: Name of the structure for each label value, e.g. ``{"0": "background", "1": "RV"}``. Value 0 is the
            background and skipped; keys may be numeric strings, as JSON has them. Values not named are ignored.
        spacing: Size of a voxel along each array axis in mm, in the order of the axes; without it the metrics in mm
            are NaN.

    Returns:
        For each structure, in the order of ``labels``, a value for each of :data:`METRIC_NAMES`.

    Raises:
        ValueError: The shapes differ, the maps are neither 2D nor 3D, ``spacing`` does not fit them, or ``labels``
            has a key that is not a whole number or gives two values one name.

    Example:
        >>> import numpy as np
        >>> metrics = segmentation_metrics(np.array([[1, 1, 0, 0]]), np.array([[0, 1, 1, 0]]), {1: "LV"}, (2.0, 2.0))
        >>> metrics["LV"]["dice"], metrics["LV"]["asd_mm"], metrics["LV"]["asd_voxel"]
        (0.5, 1.0, 0.5)
    """
    prediction_map, truth_map = np.asarray(prediction), np.asarray(truth)
    check_geometry(prediction_map.shape, truth_map.shape, spacing)
    missing = truth_map == IGNORE
    return {
        name: _structure_metrics((prediction_map == value) & ~missing, truth_map == value, missing, spacing)
        for name, value in _structures(labels).items()
    }


def dice_by_structure(
    prediction: npt.ArrayLike, truth: npt.ArrayLike, labels: Mapping[int, str] | Mapping[str, str]
) -> dict[str, float]:
    """Return the ``dice`` of :func:`segmentation_metrics` alone, without the cost of the distances.

    Args:
        prediction: Label map, as there.
        truth: Label map of the same shape.
        labels: Name of the structure for each label value, as there.

    Returns:
        For each structure its Dice: 0 where it is in exactly one of the two, NaN where it is in neither.

    Raises:
        ValueError: As there.

    Example:
        >>> import numpy as np
        >>> dice_by_structure(np.array([[1, 1, 0, 0]]), np.array([[0, 1, 1, 0]]), {1: "LV", 2: "RV"})
        {'LV': 0.5, 'RV': nan}
    """
    prediction_map, truth_map = np.asarray(prediction), np.asarray(truth)
    check_geometry(prediction_map.shape, truth_map.shape, None)
    annotated = truth_map != IGNORE
    return {
        name: _overlap((prediction_map == value) & annotated, truth_map == value)["dice"]
        for name, value in _structures(labels).items()
    }


def label_map(case: Tensor) -> npt.NDArray[np.int64]:
    """Return the class indices of one case.

    Args:
        case: One-hot ``(C, *spatial)``, or class indices ``(1, *spatial)``, on any device.

    Returns:
        Class indices of shape ``(*spatial)``.

    Example:
        >>> import torch
        >>> label_map(torch.tensor([[[1, 0]], [[0, 1]]])).tolist(), label_map(torch.tensor([[[0, 1]]])).tolist()
        ([[0, 1]], [[0, 1]])
    """
    return np.asarray((case[0] if len(case) == 1 else case.argmax(0)).cpu().numpy())


def _structures(labels: Mapping[int, str] | Mapping[str, str]) -> dict[str, int]:
    named = [(name, int(value)) for value, name in labels.items() if int(value) != 0]
    structures = dict(named)
    if len(structures) < len(named):
        raise ValueError(f"labels {dict(labels)} names a structure twice: give every label value a name of its own")
    return structures


def _structure_metrics(
    prediction: BoolArray, truth: BoolArray, missing: BoolArray, spacing: Sequence[float] | None
) -> dict[str, float]:
    metrics = dict.fromkeys(METRIC_NAMES, math.nan) | _overlap(prediction, truth)
    if prediction.any() and truth.any():
        metrics |= _distances(prediction, truth, missing, None, "voxel")
        if spacing is not None:
            metrics |= _distances(prediction, truth, missing, spacing, "mm")
    return metrics


def _overlap(prediction: BoolArray, truth: BoolArray) -> dict[str, float]:
    common = int(np.count_nonzero(prediction & truth))
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth))
    if total == 0:
        return {"dice": math.nan, "jaccard": math.nan}
    return {"dice": 2 * common / total, "jaccard": common / (total - common)}


def _distances(
    prediction: BoolArray, truth: BoolArray, missing: BoolArray, spacing: Sequence[float] | None, unit: str
) -> dict[str, float]:
    forward, backward = surface_distances(prediction, truth, spacing, missing if missing.any() else None)
    if not (forward.size and backward.size):
        return {}
    # Pooled: a direction with more surface voxels weighs more. The mean of means in assd weighs both alike.
    return {
        f"hd95_{unit}": float(np.percentile(np.concatenate((forward, backward)), 95)),
        f"asd_{unit}": float(forward.mean()),
        f"assd_{unit}": float((forward.mean() + backward.mean()) / 2),
    }
