# SPDX-License-Identifier: Apache-2.0
"""Files whose voxels are not class indices: the optional ``label_values`` and ``label_threshold`` of a datalist.

The first leads from raw values to classes; in a bundle config the same is ``monai.transforms.MapLabelValued`` with
``orig_labels`` and ``target_labels``. The second is for two classes whose raw values spread, as lossy compression makes
them: those at or above it are class 1, as with ``monai.transforms.AsDiscreted`` and its ``threshold``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np
from monai.transforms import MapLabelValue

__all__ = ["classes_by_value", "foreign_values", "label_value_mistakes", "map_label_values"]

REMEDY = 'write them as {"raw value": class}, such as {"0": 0, "255": 1}, with every class of `labels`'


def label_value_mistakes(datalist: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield cause and remedy of each mistake in the ``label_values`` or ``label_threshold`` that a datalist may have.

    Example:
        >>> labels = {"0": "background", "1": "heart"}
        >>> [cause for cause, _ in label_value_mistakes({"labels": labels, "label_values": {"0": 0, "255": 2}})]
        ['`label_values` leads to 0, 2, but the classes are 0, 1']
    """
    yield from _threshold_mistakes(datalist)
    if "label_values" not in datalist:
        return
    values, labels = datalist["label_values"], datalist.get("labels")
    if not isinstance(values, dict) or not all(type(target) is int for target in values.values()):
        yield "`label_values` is not an object of class numbers", REMEDY
        return
    wrong = [raw for raw in values if not _is_integer(raw)]
    if wrong:
        yield f"`label_values` has keys that are not whole numbers: {', '.join(wrong)}", REMEDY
    classes = {str(target) for target in values.values()}
    if isinstance(labels, dict) and classes != set(labels):
        yield f"`label_values` leads to {_enumerate(classes)}, but the classes are {_enumerate(labels)}", REMEDY


def classes_by_value(datalist: Mapping[str, Any]) -> dict[int, int]:
    """Return the class of each raw value that annotations may have, in a valid datalist.

    Example:
        >>> classes_by_value({"labels": {"0": "background", "1": "heart"}})
        {0: 0, 1: 1}
    """
    values = datalist.get("label_values") or {value: value for value in datalist["labels"]}
    return {int(raw): int(target) for raw, target in values.items()}


def foreign_values(label: np.ndarray, allowed: Collection[int]) -> list[float]:
    """Return the sorted values of an annotation, of any shape, that are not allowed."""
    return np.unique(label[~np.isin(label, list(allowed))]).tolist()


def map_label_values(
    label: np.ndarray, label_values: Mapping[str, int] | None, label_threshold: float | None = None
) -> np.ndarray:
    """Turn the raw values of an annotation, of any shape, into classes.

    Args:
        label: the annotation as it is in its file.
        label_values: raw value to class, as in a datalist; None leaves the annotation as it is.
        label_threshold: raw values at or above it are class 1 and all others class 0; not with ``label_values``.

    Raises:
        ValueError: if the annotation has a value that ``label_values`` lacks.

    Example:
        >>> map_label_values(np.array([0, 255, 255]), {"0": 0, "255": 1}).tolist()
        [0, 1, 1]
    """
    if label_threshold is not None:
        return np.greater_equal(label, label_threshold).astype(np.int32)
    if not label_values:
        return label
    foreign = foreign_values(label, [int(raw) for raw in label_values])
    if foreign:
        shown = ", ".join(f"{value:g}" for value in foreign[:5])
        raise ValueError(f"label values {shown} are not in `label_values` ({', '.join(label_values)})")
    return np.asarray(MapLabelValue([int(raw) for raw in label_values], [*label_values.values()], np.int32)(label))


def _threshold_mistakes(datalist: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "label_threshold" not in datalist:
        return
    threshold, labels = datalist["label_threshold"], datalist.get("labels")
    if not isinstance(threshold, Real) or isinstance(threshold, bool) or not math.isfinite(threshold):
        yield f"`label_threshold` is {threshold!r}, not a number", "write the smallest raw value of class 1"
    if isinstance(labels, dict) and len(labels) != 2:
        yield f"`label_threshold` tells two classes apart, not {len(labels)}", "use `label_values` instead"
    if "label_values" in datalist:
        yield "has both `label_values` and `label_threshold`", "drop one of them"


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and str(int(text)) == text


def _enumerate(numbers: Collection[str]) -> str:
    return ", ".join(sorted(numbers))
