# SPDX-License-Identifier: Apache-2.0
"""Which classes the raw values of annotations become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from metassl_monai.data import DatalistError

from .label_maps import JPEG_THRESHOLD, is_lossy

__all__ = ["class_table", "seldom_annotated"]


def class_table(
    values: Mapping[Path, Iterable[int]], names: Mapping[int, str], ignore: int | None, where: Path
) -> dict[str, Any]:
    """Return ``labels`` and ``label_values`` of a datalist: the values that annotations hold, numbered from 0.

    The background comes first: the value that is named so, or else 0, or, where 0 is what nobody annotated, the
    smallest value. Values that have a name and occur nowhere are no classes.

    Args:
        values: the raw values in each annotation.
        names: of raw values; where there are any, all values but the background need one.
        ignore: the raw value of voxels that nobody annotated, which is no class.
        where: what a message is to name where it is about all annotations.

    Returns:
        ``labels``; and ``label_values`` where raw values are not the classes themselves, or ``label_threshold`` where
        masks are JPEG.

    Raises:
        DatalistError: if a value has no name although others do, two have the same name, there is no structure, or
            JPEG masks have several.

    Example:
        >>> class_table({Path("a.nii"): [0, 3, 7, 255]}, {}, 255, Path("labels"))
        {'labels': {'0': 'background', '1': 'label 3', '2': 'label 7'}, 'label_values': {'0': 0, '3': 1, '7': 2}}
    """
    order = _order({value for of_one in values.values() for value in of_one} - {ignore}, names, ignore, where)
    for file, of_one in values.items():
        strange = sorted(set(of_one) - {order[0], ignore} - set(names))
        if names and strange:
            cause = f"has the value {strange[0]}, and only {', '.join(map(str, sorted(names)))} have names"
            raise DatalistError(file, cause, f"correct the annotation, or add --label {strange[0]}=NAME")
    labels = {str(number): names.get(value, f"label {value}") for number, value in enumerate(order)}
    labels["0"] = names.get(order[0], "background")
    twins = [name for name, count in Counter(labels.values()).items() if count > 1]
    if twins:
        raise DatalistError(where, f"two label values are called {twins[0]!r}", "give each a name of its own")
    lossy = [file for file in values if is_lossy(file)]
    if lossy and order != [0, 255]:
        cause = "is a JPEG mask whose values are blurred by its compression"
        raise DatalistError(lossy[0], cause, "save masks as PNG; JPEG will do for one structure of value 255 alone")
    if lossy:
        return {"labels": labels, "label_threshold": JPEG_THRESHOLD}
    if order == list(range(len(order))):
        return {"labels": labels}
    return {"labels": labels, "label_values": {str(value): number for number, value in enumerate(order)}}


def seldom_annotated(values: Mapping[Path, Iterable[int]], table: Mapping[str, Any]) -> Iterator[str]:
    """Yield a remark on each structure that fewer than half of the annotations have.

    Args:
        values: the raw values in each annotation.
        table: what `class_table` made of them.

    Example:
        >>> values = {Path("a"): [0, 1, 2], Path("b"): [0, 1], Path("c"): [0, 1]}
        >>> next(seldom_annotated(values, class_table(values, {2: "aorta"} | {1: "heart"}, None, Path())))[:40]
        'aorta is in 1 of 3 annotations only: whe'
    """
    classes = table.get("label_values") or {value: value for value in table["labels"]}
    for value, number in classes.items():
        count = sum(int(value) in of_one for of_one in values.values())
        if int(number) and values and 2 * count < len(values):
            name = table["labels"][str(number)]
            yield (
                f"{name} is in {count} of {len(values)} annotations only: where it was left out, the network learns "
                "that it is background; give such voxels a value of their own and pass --ignore"
            )


def _order(values: set[Any], names: Mapping[int, str], ignore: int | None, where: Path) -> list[int]:
    """Return the raw values of the classes, that of the background first."""
    background = next((value for value, name in names.items() if name.lower() == "background"), None)
    if background is None:
        background = min(values, default=0) if ignore == 0 else 0
    order = [background, *sorted(values - {background})]
    if len(order) < 2:
        cause = f"the annotations hold no value but {background}" + ("" if ignore is None else f" and {ignore}")
        raise DatalistError(where, cause, "annotate a structure with another value, or correct --labels or --ignore")
    return order
