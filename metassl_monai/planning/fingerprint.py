# SPDX-License-Identifier: Apache-2.0
"""What a data set looks like in numbers: what a plan is made from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import ndimage

from metassl_monai.data import load_datalist, read_datalist, read_label, read_scan
from metassl_monai.data.pictures import is_picture
from metassl_monai.ignore import IGNORE
from metassl_monai.progress import Progress

__all__ = ["device_at_hand", "take_fingerprint"]

_MOST_READ = 40
"""Cases of each list that are read: enough for medians, and minutes less on thousands."""
_CODES = "RAS"
"""How volumes are turned to be compared, where their datalist names no orientation."""
_VOXELS = 20_000
"""Voxels a case from which intensities are taken."""


class _Look(NamedTuple):
    """What one case shows."""

    size: list[int]  # voxels along each axis
    spacing: list[float] | None  # millimeters
    codes: str  # to where the axes point
    smallest: float
    whole: bool  # all intensities are whole numbers
    nonzero: float  # share of the volume inside the box of what is not zero
    inside: np.ndarray  # intensities of the labeled structures
    structures: dict[int, tuple[int, float]]  # by class: voxels, share of the largest component
    box: list[int] | None  # voxels of the box of all structures
    annotated: bool


def take_fingerprint(datalist: Path, dataset_dir: Path) -> dict[str, Any]:
    """Read a data set and describe it.

    Args:
        datalist: the datalist file.
        dataset_dir: the folder that its paths are relative to.

    Returns:
        A JSON object. ``kind`` is ``"volume"`` or ``"picture"``. ``size`` and ``spacing`` (mm; None where files state
        none) are medians along the axes, which point to where ``codes`` says.
        ``nonzero`` is the median share of an image inside the box of its nonzero voxels, ``box`` the median size of the
        box of the structures in voxels. ``intensity`` has percentiles of the first channel inside the structures.
        ``classes`` has by name the share of the annotated voxels and the smallest share that the largest component has
        of a case's voxels of it. ``partial`` says whether some voxels
        are not annotated. ``subjects`` and ``cases`` count each list.

    Raises:
        ValueError: when an annotation has a value that stands for no class. Check the data first.
    """
    content = read_datalist(datalist)
    labeled = load_datalist(datalist, "labeled", os.fspath(dataset_dir))
    unlabeled = load_datalist(datalist, "unlabeled", os.fspath(dataset_dir))
    items = [*_spread(labeled), *_spread(unlabeled)]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        looks = list(Progress(pool.map(lambda item: _look(item, content), items), "looking", len(items), unit="case"))
    known = [look.spacing for look in looks if look.spacing is not None]
    unknown = content.get("source", {}).get("spacing") == "unknown" or not known
    counts = {key: len({item["subject"] for item in content[key]}) for key in ("labeled", "unlabeled", "validation")}
    return {
        "kind": "picture" if is_picture(_first_file(items[0])) else "volume",
        "channels": len(content.get("channels", ())) or 1,
        "partial": "ignore" in content,
        "subjects": counts,
        "cases": {key: len(content[key]) for key in ("labeled", "unlabeled", "validation", "test")},
        "size": _median([look.size for look in looks]),
        "largest_size": np.max([look.size for look in looks], axis=0).tolist(),
        "spacing": None if unknown else _median(known),
        "same_spacing": not unknown and bool(np.ptp(np.array(known), axis=0).max() < 0.05 * np.min(known)),
        "codes": looks[0].codes,
        "nonzero": float(np.median([look.nonzero for look in looks])),
        "box": _median([look.box for look in looks if look.box]),
        "intensity": _intensity(looks),
        "classes": _classes(content["labels"], [look for look in looks if look.annotated]),
    }


def device_at_hand() -> dict[str, Any]:
    """Return what the training is going to run on: ``name``, ``cuda``, ``memory_gb``, ``cores``."""
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        return {"name": about.name, "cuda": True, "memory_gb": about.total_memory / 2**30, "cores": os.cpu_count()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 8.0
    return {"name": "CPU", "cuda": False, "memory_gb": memory, "cores": os.cpu_count()}


def _spread(items: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return some items from the whole list, the same ones each time."""
    places: Any = np.unique(np.linspace(0, len(items) - 1, min(len(items), _MOST_READ)).astype(int)) if items else []
    return [items[place] for place in places]


def _first_file(item: Mapping[str, Any]) -> str:
    return item["image"] if isinstance(item["image"], str) else item["image"][0]


def _look(item: Mapping[str, Any], content: Mapping[str, Any]) -> _Look:
    picture = is_picture(_first_file(item))
    codes = "" if picture else content.get("orientation", _CODES)
    image = read_scan(_first_file(item), codes or None)
    voxels = image.numpy()
    if not picture and voxels.ndim == 4:  # channels first
        voxels = voxels[0]
    if picture and voxels.ndim == 3:  # colors last
        voxels = voxels[..., 0]
    sample = voxels.reshape(-1)[:: max(1, voxels.size // _VOXELS)]
    turned = content if picture else {**content, "orientation": codes}
    label = read_label(item["label"], turned).numpy() if "label" in item else np.zeros((), np.int32)
    label = np.where(label == IGNORE, 0, label)
    classes = range(1, len(content["labels"]))
    return _Look(
        size=list(voxels.shape),
        spacing=None if picture else [float(value) for value in image.pixdim[:3]],
        codes=codes,
        smallest=float(sample.min()),
        whole=bool((sample == np.rint(sample)).all()),
        nonzero=_share_of_box(voxels),
        inside=_some(voxels[label > 0]) if label.ndim else np.empty(0),
        structures={value: _structure(label == value) for value in classes} if label.ndim else {},
        box=_box(label) if label.ndim else None,
        annotated=bool(label.ndim),
    )


def _some(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, values.size // _VOXELS)]


def _bounds(mask: np.ndarray) -> list[slice] | None:
    found: list[Any] = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found else None


def _share_of_box(voxels: np.ndarray) -> float:
    bounds = _bounds(voxels != 0)
    return float(np.prod([part.stop - part.start for part in bounds]) / voxels.size) if bounds else 0.0


def _box(label: np.ndarray) -> list[int] | None:
    bounds = _bounds(label > 0)
    return [part.stop - part.start for part in bounds] if bounds else None


def _structure(mask: np.ndarray) -> tuple[int, float]:
    count = int(mask.sum())
    if count == 0:
        return 0, 1.0
    parts, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return count, float(np.bincount(parts.ravel())[1:].max() / count)


def _median(sizes: Iterable[Any]) -> list[float]:
    rows = list(sizes)
    return [float(value) for value in np.median(np.array(rows, dtype=float), axis=0)] if rows else []


def _intensity(looks: list[_Look]) -> dict[str, Any]:
    inside = np.concatenate([look.inside for look in looks])
    low, middle, high = np.percentile(inside, (0.5, 50, 99.5)) if inside.size else (0.0, 0.0, 0.0)
    smallest = float(np.median([look.smallest for look in looks]))
    whole = all(look.whole for look in looks)
    numbers = {
        "low": float(low),
        "median": float(middle),
        "high": float(high),
        "mean": float(inside.mean()) if inside.size else 0.0,
    }
    return {"smallest": smallest, "whole": whole, "inside": numbers}


def _classes(labels: Mapping[str, str], looks: list[_Look]) -> dict[str, dict[str, float]]:
    voxels = sum(float(np.prod(look.size)) for look in looks) or 1.0
    table = {}
    for value, name in list(labels.items())[1:]:
        of_cases = [look.structures[int(value)] for look in looks]
        share = sum(count for count, _ in of_cases) / voxels
        table[name] = {"share": share, "largest_component": min((part for _, part in of_cases), default=1.0)}
    return table
