# SPDX-License-Identifier: Apache-2.0
"""nnU-Net's raw layout: ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``dataset.json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metassl_monai.data import DatalistError
from metassl_monai.data.datalist import parse_json

from .folders import further_cases, read_folders
from .found import Found
from .label_names import json_label_names
from .naming import match
from .scans import scans_in

__all__ = ["is_nnunet", "read_nnunet"]


def is_nnunet(folder: Path) -> bool:
    """Say whether a folder has nnU-Net's raw layout; the Decathlon's has no channels in names of files."""
    images = folder / "imagesTr"
    return (folder / "labelsTr").is_dir() and any(images.glob("*_0000.*"))


def read_nnunet(folder: Path, exclude: Sequence[Path]) -> Found:
    """Return the cases of a data set in nnU-Net's raw layout.

    Channels are ``_0000``, ``_0001`` and so on. Training images without label are unlabeled. Images of ``imagesTs``
    whose labels lie in ``labelsTs`` are test cases; those without are left out, since nobody should train on test
    images unknowingly.

    Args:
        folder: the folder that holds ``imagesTr``.
        exclude: folders in it that are left out.

    Raises:
        DatalistError: as `read_folders`, and for a ``dataset.json`` that names other channels than there are.
    """
    found = read_folders(folder / "imagesTr", folder / "labelsTr", None, exclude)
    found.layout = "nnU-Net"
    _describe(found, folder / "dataset.json")
    if (folder / "imagesTs").is_dir():
        _add_test(found, folder, told=(folder / "imagesTs").resolve() in {path.resolve() for path in exclude})
    return found


def _describe(found: Found, file: Path) -> None:
    """Take names of channels and labels from ``dataset.json``, where there is one."""
    if not file.is_file():
        found.remarks.append("there is no dataset.json: labels are called after their values")
        return
    content = parse_json(file)
    content = content if isinstance(content, dict) else {}
    found.names, found.ignore = json_label_names(content.get("labels"), file)
    names = content.get("channel_names", content.get("modality"))
    if isinstance(names, dict) and len(names) > 1:
        if len(names) != len(found.endings):
            cause = f"it names {len(names)} channels, and images have {len(found.endings)}"
            raise DatalistError(file, cause, "correct `channel_names`, or add the missing files")
        found.channels = tuple(str(names[key]) for key in sorted(names, key=int))


def _add_test(found: Found, folder: Path, told: bool) -> None:
    """Add the labeled images of ``imagesTs``; say how many others there are, unless it is told to learn from them."""
    cases = further_cases(folder / "imagesTs", found.cases, found.endings, ())
    labels = scans_in(folder / "labelsTs") if (folder / "labelsTs").is_dir() else []
    of_image = {scan.key: scan.path for scan in labels}
    pairs = {image: of_image[label] for label, image in match(list(of_image), [c.name for c in cases]).items()}
    found.cases += [case._replace(label=pairs[case.name], key="test") for case in cases if case.name in pairs]
    left_out = len(cases) - len(pairs)
    if left_out and not told:
        text = f"{left_out} images of imagesTs have no label and are left out; to learn from them, pass --unlabeled"
        found.remarks.append(f"{text} {folder / 'imagesTs'}")
