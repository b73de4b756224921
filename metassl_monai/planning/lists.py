# SPDX-License-Identifier: Apache-2.0
"""Data sets that come with a list in JSON: the Decathlon's, MONAI's datalists, and our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metassl_monai.data import DatalistError, validate_datalist
from metassl_monai.data.channels import case_stem, image_files
from metassl_monai.data.datalist import parse_json
from metassl_monai.data.datalist_structure import LISTS

from .found import Case, Found
from .label_names import json_label_names

__all__ = ["read_list"]

PLACES = {
    "training": None,
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "unlabeled": None,
}
"""The lists of others, and where their labeled items go; None leaves it to the division."""

KEPT = ("labels", "label_values", "label_threshold", "orientation", "channels", "ignore")
"""What a datalist of ours says of all its cases."""


def read_list(file: Path) -> Found:
    """Return the cases that a JSON file lists, with paths relative to its folder.

    Our own datalists stay as they are. Of others, items of ``training`` without label and those of ``unlabeled`` are
    unlabeled, labeled ones of ``validation`` and ``test`` stay there, and test images without label are left out.

    Args:
        file: ``dataset.json`` of the Decathlon, or a datalist.

    Raises:
        DatalistError: if the file is no such list, or a file that it names is missing.
    """
    content = parse_json(file)
    if not isinstance(content, dict) or not any(isinstance(content.get(key), list) for key in (*PLACES, *LISTS)):
        raise DatalistError(file, "lists no cases", "name a datalist, or the folder of the images")
    found = _own(content, file) if "labeled" in content else _others(content, file)
    for case in found.cases:
        for path in (*case.images, *([case.label] if case.label else [])):
            if not path.exists():
                remedy = f"correct {file.name}; its paths are relative to its own folder"
                raise DatalistError(path, "the file is missing", remedy)
    return found


def _own(content: dict[str, Any], file: Path) -> Found:
    validate_datalist(content, file)
    cases = [
        Case(item["case"], _paths(item["image"], file), label, item["subject"], key)
        for key in LISTS
        for item in content[key]
        for label in [_path(item["label"], file) if "label" in item else None]
    ]
    fixed = {key: content[key] for key in KEPT if key in content}
    return Found("datalist", cases, tuple(content.get("channels", ())), fixed=fixed, ignore=content.get("ignore"))


def _others(content: dict[str, Any], file: Path) -> Found:
    found = Found("list in JSON", [])
    names = content.get("channel_names", content.get("modality"))
    if isinstance(names, dict) and len(names) > 1:
        found.channels = tuple(str(name) for name in names.values())
    if "labels" in content:
        found.names, found.ignore = json_label_names(content["labels"], file)
    left_out = 0
    for key, item in _items(content, file):
        label = item.get("label")
        if label is None and PLACES[key]:
            left_out += 1
            continue
        images = _paths(item["image"], file)
        name = (Path(image_files(item["image"])[0]).parent / case_stem(image_files(item["image"]))).as_posix()
        annotation = _path(label, file) if label and key != "unlabeled" else None
        found.cases.append(Case(name, images, annotation, item.get("subject"), PLACES[key]))
    several = max((len(case.images) for case in found.cases), default=1)
    if several > 1 and not found.channels:
        found.channels = tuple(f"channel {number}" for number in range(several))
    if left_out:
        text = f"{left_out} validation or test images have no label and are left out"
        found.remarks.append(f"{text}; to learn from them, put them into a list `unlabeled`")
    return found


def _items(content: dict[str, Any], file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each item with the name of its list; of the Decathlon's test images only the path is there."""
    for key in PLACES:
        for number, item in enumerate(content.get(key) or ()):
            item = {"image": item} if isinstance(item, str) else item
            image = item.get("image") if isinstance(item, dict) else None
            if not image or not all(isinstance(path, str) for path in image_files(image)):
                raise DatalistError(file, f"`{key}` item {number} has no `image`", "give each item the path of one")
            yield key, item


def _paths(image: Any, file: Path) -> tuple[Path, ...]:
    return tuple(_path(path, file) for path in image_files(image))


def _path(path: str, file: Path) -> Path:
    return file.parent / path
