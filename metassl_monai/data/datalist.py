# SPDX-License-Identifier: Apache-2.0
"""One JSON file that says which cases are labeled, unlabeled, for validation and for testing.

A datalist never leaks: no subject is in two lists, an unlabeled item has no ``label`` key that a transform could read,
and no path leaves the folder of the data set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from metassl_monai.files import atomic_write

from .channels import channel_mistakes
from .duplicates import duplicate_mistakes
from .label_values import label_value_mistakes
from .orientation import orientation_mistakes

__all__ = [
    "LISTS",
    "DatalistError",
    "datalist_errors",
    "join_inside",
    "load_datalist",
    "names_ignore",
    "parse_json",
    "path_error",
    "read_datalist",
    "validate_datalist",
    "write_datalist",
]

LISTS = ("labeled", "unlabeled", "validation", "test", "monitor")
"""The lists of a datalist; ``monitor`` holds the hidden labels of unlabeled cases and no training may read it."""

StrPath = str | os.PathLike[str]


class DatalistError(ValueError):
    """A data set that cannot be used as it is.

    Args:
        file: the file or folder that is wrong.
        cause: what is wrong with it.
        remedy: what to do about it.

    Example:
        >>> print(DatalistError("acdc.json", "no case is labeled", "name one in 'labeled'"))
        acdc.json: no case is labeled; name one in 'labeled'
    """

    def __init__(self, file: StrPath, cause: str, remedy: str) -> None:
        super().__init__(os.fspath(file), cause, remedy)

    def __str__(self) -> str:
        file, cause, remedy = self.args
        return f"{file}: {cause}; {remedy}"


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
    for error in datalist_errors(datalist, where):
        raise error


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
        The items, possibly none; ``image`` and ``label`` are paths inside ``dataset_dir``; an ``image`` of several
        files is a list of them.

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
    return [
        item | {field: _joined(dataset_dir, item[field]) for field in ("image", "label") if field in item}
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


def datalist_errors(datalist: Any, where: StrPath) -> Iterator[DatalistError]:
    """Yield everything that is wrong with the structure of a datalist, as `validate_datalist` describes it."""
    if not isinstance(datalist, dict):
        yield DatalistError(where, "is not a JSON object", "make it anew with `metassl prepare`")
        return
    if not isinstance(datalist.get("name", ""), str):
        yield DatalistError(where, f"`name` is {datalist['name']!r}, which is no text", "put the name into quotes")
    yield from _label_errors(datalist.get("labels"), where)
    for mistakes in (label_value_mistakes, orientation_mistakes, channel_mistakes):
        yield from (DatalistError(where, cause, remedy) for cause, remedy in mistakes(datalist))
    for key in LISTS:
        yield from _list_errors(datalist.get(key), key, where)
    yield from (DatalistError(where, cause, remedy) for cause, remedy in duplicate_mistakes(datalist))


def path_error(path: str) -> str | None:
    """Say why a path may not be in a datalist; None where it may. Both POSIX and Windows spellings count.

    Example:
        >>> path_error("images/a.nii.gz"), path_error("../a.nii.gz")
        (None, "has a '..' in it")
    """
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor:
        return "is absolute"
    if "\0" in path:
        return "has a null character in it"
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return "has a character in it that no name of a file can have"
    return "has a '..' in it" if ".." in PureWindowsPath(path).parts else None


def _joined(root: StrPath, image: str | list[str]) -> str | list[str]:
    return join_inside(root, image) if isinstance(image, str) else [join_inside(root, file) for file in image]


def _refuse_foreign(path: Path) -> None:
    try:
        read_datalist(path)
    except DatalistError:
        raise DatalistError(path, "exists and is not a datalist", "choose another file to write to") from None


def _label_errors(labels: Any, where: StrPath) -> Iterator[DatalistError]:
    remedy = 'write them as {"0": "background", "1": "name", ...}'
    if not isinstance(labels, dict):
        yield DatalistError(where, "`labels` is missing or not an object", remedy)
    elif len(labels) < 2 or set(labels) != {str(value) for value in range(len(labels))}:
        yield DatalistError(where, f"the values in `labels` are not 0, 1, ... but {', '.join(labels)}", remedy)


def _list_errors(items: Any, key: str, where: StrPath) -> Iterator[DatalistError]:
    if not isinstance(items, list):
        yield DatalistError(where, f"`{key}` is missing or not a list", f"add the list `{key}`; it may be empty")
        return
    if key == "labeled" and not items:
        yield DatalistError(where, "no case is labeled: `labeled` is empty", "move at least one case into `labeled`")
    for number, item in enumerate(items):
        yield from _item_errors(item, key, f"`{key}` item {number}", where)


def _item_errors(item: Any, key: str, name: str, where: StrPath) -> Iterator[DatalistError]:
    if not isinstance(item, dict):
        yield DatalistError(where, f"{name} is not an object", "write it with `image`, `subject` and `case`")
        return
    needed = ("image", "subject", "case") + (("label",) if key != "unlabeled" else ())
    for field in needed:
        value = item.get(field)
        # an image may be a list of files, one a channel
        texts = value if field == "image" and isinstance(value, list) and value else [value]
        if not all(isinstance(text, str) and text for text in texts):
            yield DatalistError(where, f"{name} has no `{field}`", f"give it a `{field}`, as text")
    if key == "unlabeled" and "label" in item:
        yield DatalistError(where, f"{name} has a `label`", "drop the key; hidden labels belong in `monitor`")
    for field in ("image", "label"):
        value = item.get(field, "")
        for path in map(str, value if isinstance(value, list) else [value]):
            if reason := path_error(path):
                remedy = "write it relative to the dataset folder"
                yield DatalistError(where, f"the `{field}` of {name}, {path}, {reason}", remedy)
