# SPDX-License-Identifier: Apache-2.0
"""Files whose voxels are not class indices: the optional ``label_values``, ``label_threshold`` and ``ignore``.

The first leads from raw values to classes. The second is for two classes whose raw values spread, as lossy compression
makes them: those at or above it are class 1. The third is the raw value of voxels that nobody annotated.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np

from metassl_monai.ignore import IGNORE

from .problems import DatalistError, Problem

__all__ = ["classes_by_value", "label_classes", "label_problem", "label_value_problems", "raw_label"]

REMEDY = 'write them as {"raw value": class}, such as {"0": 0, "255": 1}, with every class of `labels`'


def label_value_problems(datalist: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Yield each mistake in ``label_values``, ``label_threshold`` and ``ignore``, where they are.

    Example:
        >>> datalist = {"labels": {"0": "background", "1": "heart"}, "label_values": {"0": 0, "255": 2}}
        >>> [problem.cause for problem in label_value_problems(datalist, "datalist.json")]
        ['`label_values` leads to 0, 2, but the classes are 0, 1']
    """
    yield from _threshold_problems(datalist, where)
    yield from _ignore_problems(datalist, where)
    if "label_values" not in datalist:
        return
    values, labels = datalist["label_values"], datalist.get("labels")
    if not isinstance(values, dict) or not all(type(target) is int for target in values.values()):
        yield Problem(where, "`label_values` is not an object of class numbers", REMEDY)
        return
    wrong = [raw for raw in values if not _is_integer(raw)]
    if wrong:
        yield Problem(where, f"`label_values` has keys that are not whole numbers: {', '.join(wrong)}", REMEDY)
    classes = {str(target) for target in values.values()}
    if isinstance(labels, dict) and classes != set(labels):
        yield Problem(
            where, f"`label_values` leads to {_enumerate(classes)}, but the classes are {_enumerate(labels)}", REMEDY
        )


def classes_by_value(datalist: Mapping[str, Any]) -> dict[int, int]:
    """Return the class of each raw value that annotations may have, in a valid datalist.

    The value that the datalist calls ``ignore`` leads to :data:`~metassl_monai.ignore.IGNORE`.

    Example:
        >>> classes_by_value({"labels": {"0": "background", "1": "heart"}, "ignore": 255})
        {0: 0, 1: 1, 255: -1}
    """
    values = datalist.get("label_values") or {value: value for value in datalist["labels"]}
    classes = {int(raw): int(target) for raw, target in values.items()}
    return classes | ({datalist["ignore"]: IGNORE} if "ignore" in datalist else {})


def label_problem(label: np.ndarray, datalist: Mapping[str, Any], file: str) -> Problem | None:
    """Return what is wrong with the raw values of an annotation, of any shape; None if nothing is.

    Example:
        >>> datalist = {"labels": {"0": "background", "1": "heart"}}
        >>> label_problem(np.array([0, 7]), datalist, "a.nii.gz").cause
        'label values 7 are not in `labels` (0 to 1)'
    """
    if "label_threshold" in datalist:
        return None
    classes = classes_by_value(datalist)
    foreign = np.unique(label[~np.isin(label, [*classes])])
    if not foreign.size:
        return None
    if not np.array_equal(foreign, foreign.round()):
        return Problem(file, "label values are not integers", "resample labels with nearest-neighbor interpolation")
    shown = ", ".join(f"{value:g}" for value in foreign[:5]) + (", ..." if len(foreign) > 5 else "")
    values = f"`label_values` ({', '.join(map(str, classes))})"
    known = values if "label_values" in datalist else _labels(datalist["labels"])
    remedy = "map them to classes, add the classes to `labels`, or name what nobody annotated as `ignore`"
    return Problem(file, f"label values {shown} are not in {known}", remedy)


def label_classes(label: np.ndarray, datalist: Mapping[str, Any], file: str | os.PathLike[str]) -> np.ndarray:
    """Turn the raw values of an annotation, of any shape, into classes.

    Args:
        label: the annotation as it is in its file.
        datalist: the content of a datalist. By its ``label_threshold``, raw values at or above it are class 1 and all
            others 0; by its ``label_values`` each raw value has a class; without both, raw values are classes. Its
            ``ignore`` is no class.
        file: where the annotation comes from, for the message.

    Returns:
        Class indices, int32, and :data:`~metassl_monai.ignore.IGNORE` where nobody annotated.

    Raises:
        DatalistError: if a value stands for no class.

    Example:
        >>> datalist = {"labels": {"0": "background", "1": "heart"}, "label_values": {"0": 0, "255": 1}}
        >>> label_classes(np.array([0, 255, 255]), datalist, "a.nii.gz").tolist()
        [0, 1, 1]
    """
    if "label_threshold" in datalist:
        above = np.greater_equal(label, datalist["label_threshold"]).astype(np.int32)
        return np.where(label == datalist["ignore"], IGNORE, above) if "ignore" in datalist else above
    problem = label_problem(label, datalist, os.fspath(file))
    if problem:
        raise DatalistError(*problem)
    if "label_values" not in datalist and "ignore" not in datalist:
        return label.astype(np.int32)
    from monai.transforms import MapLabelValue

    classes = classes_by_value(datalist)
    return np.asarray(MapLabelValue([*classes], [*classes.values()], np.int32)(label))


def raw_label(classes: np.ndarray, label_values: Mapping[str, int]) -> np.ndarray:
    """Turn classes back into the raw values of annotations, the inverse of :func:`label_classes`.

    Args:
        classes: class indices, any shape.
        label_values: class by raw value, as in a datalist; of several values of a class the smallest is taken.

    Returns:
        Raw values, of the smallest integer type that holds all of them.

    Example:
        >>> raw_label(np.array([0, 1, 2]), {"0": 0, "300": 2, "7": 1})
        array([  0,   7, 300], dtype=uint16)
    """
    by_class = {label_values[raw]: int(raw) for raw in sorted(label_values, key=int, reverse=True)}
    raws = [by_class[target] for target in range(len(by_class))]
    dtype = np.result_type(np.min_scalar_type(min(raws)), np.min_scalar_type(max(raws)))
    return np.array(raws, dtype)[classes.astype(np.intp)]


def _threshold_problems(datalist: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if "label_threshold" not in datalist:
        return
    threshold, labels = datalist["label_threshold"], datalist.get("labels")
    if not isinstance(threshold, Real) or isinstance(threshold, bool) or not math.isfinite(threshold):
        yield Problem(
            where, f"`label_threshold` is {threshold!r}, not a number", "write the smallest raw value of class 1"
        )
    if isinstance(labels, dict) and len(labels) != 2:
        yield Problem(
            where, f"`label_threshold` tells two classes apart, not {len(labels)}", "use `label_values` instead"
        )
    if "label_values" in datalist:
        yield Problem(where, "has both `label_values` and `label_threshold`", "drop one of them")


def _ignore_problems(datalist: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if "ignore" not in datalist:
        return
    ignore, values = datalist["ignore"], datalist.get("label_values", datalist.get("labels"))
    if type(ignore) is not int:
        remedy = "write the raw value of the voxels that nobody annotated, such as 255"
        yield Problem(where, f"`ignore` is {ignore!r}, not a whole number", remedy)
    elif isinstance(values, dict) and str(ignore) in values and "label_threshold" not in datalist:
        cause = f"`ignore` is {ignore}, which is also the value of a class"
        yield Problem(where, cause, "write another value into the voxels that nobody annotated, and name that one")


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and str(int(text)) == text


def _enumerate(numbers: Collection[str]) -> str:
    return ", ".join(sorted(numbers))


def _labels(labels: Collection[str]) -> str:
    return f"`labels` (0 to {len(labels) - 1})"
