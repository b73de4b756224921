# SPDX-License-Identifier: Apache-2.0
"""One JSON file that says which cases are labeled, unlabeled, for validation and for testing.

A datalist never leaks: no subject is in two lists, an unlabeled item has no ``label`` key that a transform could read,
and no path leaves the folder of the data set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from metassl_monai.files import atomic_write

from .datalist_structure import LISTS, StrPath, datalist_problems
from .problems import DatalistError

__all__ = [
    "join_inside",
    "load_datalist",
    "names_ignore",
    "parse_json",
    "read_datalist",
    "validate_datalist",
    "write_datalist",
]


def validate_datalist(datalist: Any, where: StrPath) -> None:
    """Raise the first thing that is wrong with the structure of a datalist; no image is read.

    Args:
        datalist: what the JSON file holds.
        where: the file that messages are to name.

    Raises:
        DatalistError: for a missing or malformed list, ``labels`` or item, malformed ``label_values``,
            ``orientation`` or ``channels``, a subject, file or case in two lists, a file or case in two items of one
            list, a file that is image and label, a label on an unlabeled item, a path that may leave the folder of the
            data set, or no labeled case.
    """
    for problem in datalist_problems(datalist, where):
        raise DatalistError(*problem)


def read_datalist(path: StrPath) -> dict[str, Any]:
    """Read and validate a datalist.

    Raises:
        DatalistError: if the file is missing, is not JSON or is not a valid datalist.
    """
    datalist = parse_json(path)
    validate_datalist(datalist, path)
    return dict(datalist)


def load_datalist(path: StrPath, key: str, dataset_dir: StrPath) -> list[dict[str, Any]]:
    """Return the items of one list with their paths joined to the folder of the data set.

    Written for bundle configs: ``$metassl_monai.data.load_datalist(@datalist, 'labeled', @dataset_dir)``.

    Args:
        path: the datalist.
        key: one of `LISTS`.
        dataset_dir: the folder that the item's paths are relative to.

    Returns:
        The items, possibly none; ``image`` and ``label`` are absolute paths inside ``dataset_dir``; an ``image`` of
        several files is a list of them.

    Raises:
        DatalistError: if the datalist is invalid, the list is unknown, the folder is missing or a path leaves it.

    Example:
        >>> import tempfile
        >>> item = {"image": "images/a.nii.gz", "label": "labels/a.nii.gz", "subject": "a", "case": "a"}
        >>> datalist = {key: [] for key in LISTS} | {"labels": {"0": "background", "1": "heart"}, "labeled": [item]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_datalist(datalist, Path(folder, "datalist.json"))
        ...     items = load_datalist(Path(folder, "datalist.json"), "labeled", folder)
        ...     Path(items[0]["image"]).relative_to(folder).as_posix()
        'images/a.nii.gz'
    """
    datalist = read_datalist(path)
    if key not in LISTS:
        raise DatalistError(path, f"there is no list {key!r}", f"ask for one of {', '.join(LISTS)}")
    if not os.path.isdir(dataset_dir):
        raise DatalistError(dataset_dir, "the folder of the data set is missing", "correct `dataset_dir`")
    # absolute, since ITK changes the working folder for a moment when it loads a module, under the eyes of all threads
    root = os.path.abspath(dataset_dir)
    return [
        item | {field: _joined(root, item[field]) for field in ("image", "label") if field in item}
        for item in datalist[key]
    ]


def write_datalist(datalist: dict[str, Any], path: StrPath) -> None:
    """Validate a datalist and write it whole or not at all; only another datalist is ever overwritten.

    Raises:
        DatalistError: if the datalist is invalid, or ``path`` is a file that is not a datalist.
    """
    target = Path(path)
    validate_datalist(datalist, target)
    if target.exists():
        _refuse_foreign(target)
    with atomic_write(target) as file:
        json.dump(datalist, file, indent=2)
        file.write("\n")


def parse_json(path: StrPath) -> Any:
    """Return what a JSON file holds.

    Raises:
        DatalistError: if the file cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatalistError(path, "the file is missing", "correct the path or make it with `metassl prepare`") from None
    except OSError as error:
        raise DatalistError(path, f"cannot be read ({error.strerror})", "name a readable JSON file") from None
    except (ValueError, RecursionError) as error:  # the latter of thousands of brackets
        raise DatalistError(path, f"is not JSON ({error})", "make it anew with `metassl prepare`") from None


def names_ignore(datalist: StrPath) -> bool:
    """Say whether the annotations of a datalist may leave voxels out, by its ``ignore``.

    For bundle configs: ``$metassl_monai.data.names_ignore(@datalist)``.
    """
    content = parse_json(datalist)
    return isinstance(content, dict) and "ignore" in content


def join_inside(root: StrPath, relative: str) -> str:
    """Join a path to a folder and make sure that no symbolic link leads out of the folder.

    Raises:
        DatalistError: if the path leads out of ``root``.
    """
    joined, real_root = os.path.join(root, relative), os.path.realpath(root)
    real = os.path.realpath(joined)
    # Different drives have no common path on Windows, hence the first comparison.
    if Path(real).anchor != Path(real_root).anchor or os.path.commonpath([real_root, real]) != real_root:
        raise DatalistError(joined, f"leads out of {os.fspath(root)}", "put the file itself into that folder")
    return joined


def _joined(root: StrPath, image: str | list[str]) -> str | list[str]:
    return join_inside(root, image) if isinstance(image, str) else [join_inside(root, file) for file in image]


def _refuse_foreign(path: Path) -> None:
    try:
        read_datalist(path)
    except DatalistError:
        raise DatalistError(path, "exists and is not a datalist", "choose another file to write to") from None
