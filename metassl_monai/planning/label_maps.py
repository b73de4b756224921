# SPDX-License-Identifier: Apache-2.0
"""Which raw values annotations hold, and the classes that they become."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metassl_monai.data import DatalistError, read_scan
from metassl_monai.data.pictures import first_channel

__all__ = ["MOST_VALUES", "class_table", "raw_values"]

MOST_VALUES = 200
"""A file with more different values is an image, not an annotation; whole-body annotations have about 120."""

LARGEST = 2**24
"""Float32, in which files are read, tells whole numbers apart up to here."""


def raw_values(file: str | os.PathLike[str]) -> dict[int, int]:
    """Return the number of voxels of each value in an annotation.

    Args:
        file: the annotation; its values are whole numbers of any type.

    Raises:
        DatalistError: if the file cannot be read, or its values cannot be those of an annotation.
    """
    try:
        label = read_scan(file)
    except Exception as error:  # damaged bytes make readers raise nearly anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise DatalistError(
            file, f"cannot be read ({reason[:120]})", "the file is damaged: copy or export it again"
        ) from None
    voxels = label.numpy()
    if voxels.ndim == 3 and label.meta.get("original_channel_dim") == -1:
        if (voxels[..., : min(voxels.shape[-1], 3)] != voxels[..., :1]).any() and voxels.shape[-1] > 2:
            raise DatalistError(file, "the annotation is in color", "save it in gray, one value for each structure")
        voxels = first_channel(label).numpy()
    if not np.isfinite(voxels).all():
        raise DatalistError(file, "the annotation has values that are not finite", "export it again with whole numbers")
    if not np.array_equal(voxels, voxels.round()):
        values = f"{voxels[voxels != voxels.round()][0]:g}"
        remedy = "resample labels with nearest neighbors, or swap --images and --labels if this is an image"
        raise DatalistError(file, f"label values are not whole numbers, such as {values}", remedy)
    if np.abs(voxels).max() >= LARGEST:
        raise DatalistError(file, f"has label values of up to {voxels.max():.0f}", "number the structures from 1")
    lowest = int(voxels.min())
    counts = np.bincount(voxels.astype(np.int64).ravel() - lowest)
    found = {lowest + int(place): int(counts[place]) for place in counts.nonzero()[0]}
    if len(found) > MOST_VALUES:
        cause = f"has {len(found)} different values, so that it is an image rather than an annotation"
        raise DatalistError(file, cause, "correct --labels, or swap --images and --labels")
    return found


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
        ``labels``, and ``label_values`` where raw values are not the classes themselves.

    Raises:
        DatalistError: if a value has no name although others do, two have the same name, or there is no structure.

    Example:
        >>> class_table({Path("a.nii"): [0, 3, 7, 255]}, {}, 255, Path("labels"))
        {'labels': {'0': 'background', '1': 'label 3', '2': 'label 7'}, 'label_values': {'0': 0, '3': 1, '7': 2}}
    """
    counts = Counter(value for of_one in values.values() for value in set(of_one) if value != ignore)
    background = next((value for value, name in names.items() if name.lower() == "background"), None)
    if background is None:
        background = min(counts, default=0) if ignore == 0 else 0
    order = [background, *sorted(set(counts) - {background})]
    if len(order) < 2:
        cause = f"the annotations hold no value but {background}" + (f" and {ignore}" if ignore is not None else "")
        raise DatalistError(where, cause, "annotate a structure with another value, or correct --labels or --ignore")
    for file, of_one in values.items():
        strange = sorted(set(of_one) - {background, ignore} - set(names))
        if names and strange:
            cause = f"has the value {strange[0]}, and only {', '.join(map(str, sorted(names)))} have names"
            raise DatalistError(file, cause, f"correct the annotation, or add --label {strange[0]}=NAME")
    labels = {str(number): names.get(value, f"label {value}") for number, value in enumerate(order)}
    labels["0"] = names.get(background, "background")
    twins = [name for name, count in Counter(labels.values()).items() if count > 1]
    if twins:
        raise DatalistError(where, f"two label values are called {twins[0]!r}", "give each a name of its own")
    if order == list(range(len(order))):
        return {"labels": labels}
    return {"labels": labels, "label_values": {str(value): number for number, value in enumerate(order)}}
