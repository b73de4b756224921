# SPDX-License-Identifier: Apache-2.0
"""Which layout data has, recognized by what lies in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metassl_monai.data import DatalistError
from metassl_monai.data.datalist import parse_json

from .folders import further_cases, read_folders
from .found import Found
from .h5 import h5_files, read_h5
from .lists import read_list
from .naming import IMAGE_WORDS, LABEL_WORDS
from .nnunet import is_nnunet, read_nnunet
from .scans import scans_in

__all__ = ["read_layout"]


def read_layout(images: Path, labels: Path | None, unlabeled: Sequence[Path], out: Path, suffix: str | None) -> Found:
    """Return the cases of any layout that is known.

    A JSON file is read as a list of cases. ``imagesTr`` with its ``labelsTr`` and the ``dataset.json`` beside them
    stand for the folder that holds them. Where no folder of labels is given, one with ``imagesTr`` and ``labelsTr``
    is nnU-Net's, another with a ``dataset.json`` the Decathlon's, one with h5 files and no other image that of SSL4MIS,
    and one with a folder such as ``images`` and one such as ``labels`` is these two. All else is plain folders.

    Args:
        images: a folder, or a JSON file.
        labels: the folder of labels, of plain folders.
        unlabeled: further folders of images without label.
        out: a folder that holds none of the data; h5 files are converted into it.
        suffix: what names of labels end with, in plain folders.

    Raises:
        DatalistError: as the readers of the layouts do.
    """
    if suffix is None and labels is not None and _belong_to_a_data_set(images, labels):
        images, labels = images.parent, None
    if labels is None and images.is_dir() and not scans_in(images, [out]) and h5_files(images):
        return read_h5(images, unlabeled, out / "converted")
    exclude = [out, *(folder for folder in unlabeled if folder.resolve() != images.resolve())]
    found = _read(images, labels, exclude, suffix)
    for folder in unlabeled:
        annotations = [labels] if labels else []
        cases = further_cases(folder, found.cases, found.endings, [out, *annotations])
        if not cases:
            raise DatalistError(folder, "holds no image that is not there already", "correct --unlabeled")
        found.cases += cases
    return found


def _belong_to_a_data_set(images: Path, labels: Path) -> bool:
    """Say whether the two are parts of a folder whose ``dataset.json`` names what they hold."""
    folder = images.parent
    if (images.name, labels.name) != ("imagesTr", "labelsTr") or folder.resolve() != labels.parent.resolve():
        return False
    return (folder / "dataset.json").is_file() and (is_nnunet(folder) or _lists_cases(folder / "dataset.json"))


def _read(images: Path, labels: Path | None, exclude: Sequence[Path], suffix: str | None) -> Found:
    if images.is_file() and images.suffix.lower() == ".json":
        return read_list(images)
    if labels is None and is_nnunet(images):
        return read_nnunet(images, exclude)
    if labels is None and _lists_cases(images / "dataset.json"):
        return read_list(images / "dataset.json")
    inner = [_inner(images, words) for words in (IMAGE_WORDS, LABEL_WORDS)]
    if labels is None and inner[0] and inner[1]:
        return read_folders(inner[0], inner[1], suffix, exclude)
    return read_folders(images, labels, suffix, exclude)


def _inner(folder: Path, words: Sequence[str]) -> Path | None:
    """Return the one folder in a folder that is called by one of these words."""
    names = {*words, *(f"{word}tr" for word in words)}
    found = [path for path in folder.glob("*/") if path.is_dir() and path.name.lower() in names]
    return found[0] if len(found) == 1 else None


def _lists_cases(file: Path) -> bool:
    content = parse_json(file) if file.is_file() else None
    return isinstance(content, dict) and isinstance(content.get("training"), list)
