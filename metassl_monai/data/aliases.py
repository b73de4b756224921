# SPDX-License-Identifier: Apache-2.0
"""One file under two names: links, and copies of an image, which the paths in a datalist do not show."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from .datalist import LISTS, DatalistError, join_inside, path_error
from .duplicates import one_spelling

__all__ = ["alias_errors"]

TRAINING = ("labeled", "unlabeled")
CHUNK = 2**20
SAMPLE = 2**12
REMEDY = "keep each image and each label in one item only"


class Named(NamedTuple):
    """A file as a datalist names it."""

    path: str  # relative
    key: str
    number: int
    field: str
    file: str


def alias_errors(datalist: Mapping[str, Any], dataset_dir: str | os.PathLike[str]) -> Iterator[DatalistError]:
    """Yield the files that a datalist names twice under different paths, in any of its lists.

    Two paths lead to one file by symbolic links, hard links or, on some systems, another spelling. An image may also be
    a copy of another, byte for byte or compressed anew; that of a DICOM series may have other file names. Copies among
    training images are let pass: they give away nothing that is tested on, and public data sets have some. Labels may
    be copies of each other, since two can be empty. Files that are missing or cannot be read are passed over.

    Args:
        datalist: what the JSON file holds.
        dataset_dir: the folder that its paths are relative to.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.nii", "b.nii"):
        ...         _ = Path(folder, name).write_text("voxels")
        ...     lists = {"labeled": [{"image": "a.nii"}], "test": [{"image": "b.nii"}]}
        ...     [error.args[1] for error in alias_errors(lists, folder)]
        ['the image in `test` has the content of a.nii in `labeled`']
    """
    named = list(_named(datalist, dataset_dir))
    told: set[frozenset[tuple[str, int]]] = set()
    links = [(first, other) for first, *others in _alike(named, _identity) for other in others]
    for first, other in links:
        # A linked case is one mistake, though its label is a link too.
        items = frozenset({(first.key, first.number), (other.key, other.number)})
        if items not in told:
            yield _error(first, other, "is the same file as")
        told.add(items)
    linked = {other.path for _, other in links}
    for first, *others in _copies([name for name in named if name.path not in linked]):
        # Lists come in their order, so that the first one is for training too if another is.
        wrong = (other for other in others if other.field == "label" or other.key not in TRAINING)
        yield from (_error(first, other, "has the content of") for other in wrong)


def _error(first: Named, other: Named, relation: str) -> DatalistError:
    cause = f"the {other.field} in `{other.key}` {relation} {first.path} in `{first.key}`"
    return DatalistError(other.file, cause, REMEDY)


def _named(datalist: Mapping[str, Any], root: str | os.PathLike[str]) -> Iterator[Named]:
    """Yield every path once, images first; what the structure of a datalist forbids is reported elsewhere."""
    images, labels = (_first_items(datalist, field) for field in ("image", "label"))
    # A label that is also named as an image is reported there, and is not compared with the other labels.
    fields = {"image": {path: item for path, item in images.items() if path not in labels}, "label": labels}
    for field, items in fields.items():
        for path, (key, number) in items.items():
            try:
                yield Named(path, key, number, field, join_inside(root, path))
            except DatalistError:
                continue


def _first_items(datalist: Mapping[str, Any], field: str) -> dict[str, tuple[str, int]]:
    """Return the first list and item that name each path, in the order of the lists."""
    found: dict[str, tuple[str, int]] = {}
    for key in LISTS:
        items = datalist.get(key)
        for number, item in enumerate(items if isinstance(items, list) else ()):
            path = item.get(field) if isinstance(item, dict) else None
            if isinstance(path, str) and path and path_error(path) is None:
                found.setdefault(one_spelling(path), (key, number))
    return found


def _copies(named: list[Named]) -> list[list[Named]]:
    """Return groups of equal content that begin with an image."""
    groups = [named]
    for key in (_size, _sample, _digest):  # each costs more, and is asked of fewer
        groups = [alike for group in groups for alike in _alike(group, key) if alike[0].field == "image"]
    return groups


def _alike(named: list[Named], key: Callable[[str], Hashable]) -> list[list[Named]]:
    """Return the groups of two or more files that agree in a key, in their order."""
    groups = defaultdict(list)
    for name in named:
        try:
            groups[key(name.file)].append(name)
        except (OSError, EOFError, zlib.error):
            continue
    return [group for group in groups.values() if len(group) > 1]


def _identity(file: str) -> Hashable:
    status = os.stat(file)
    return status.st_dev, status.st_ino


def _parts(file: str) -> list[str]:
    """Return a file itself, or the files of a folder."""
    return [entry.path for entry in os.scandir(file) if entry.is_file()] if os.path.isdir(file) else [file]


def _size(file: str) -> Hashable:
    return tuple(sorted(_length(part) for part in _parts(file)))


def _length(file: str) -> int:
    """Return the size of a file, or the checksum and size of what it holds compressed, from its last eight bytes."""
    if not file.endswith(".gz"):
        return os.path.getsize(file)
    with open(file, "rb") as stream:
        stream.seek(-8, os.SEEK_END)
        return int.from_bytes(stream.read(), "little")


def _sample(file: str) -> Hashable:
    return tuple(sorted(_middle(part) for part in _parts(file)))


def _middle(file: str) -> bytes:
    """Return bytes from within a file that is not compressed: most images of one size differ there."""
    if file.endswith(".gz"):
        return b""
    with open(file, "rb") as stream:
        stream.seek(os.path.getsize(file) // 2)
        return stream.read(SAMPLE)


def _digest(file: str) -> Hashable:
    return tuple(sorted(_hash(part) for part in _parts(file)))


def _hash(file: str) -> bytes:
    digest = hashlib.blake2b()
    with gzip.open(file) if file.endswith(".gz") else open(file, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.digest()
