# SPDX-License-Identifier: Apache-2.0
"""Files that are the channels of one image, by the ends of their names: ``case_0000`` and ``case_0001``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from metassl_monai.data import DatalistError

from .found import Case
from .naming import bare_label, match
from .scans import Scan

__all__ = ["channel_endings", "group_channels"]

SEPARATORS = "-_. /"


def channel_endings(labels: Sequence[str], images: Sequence[str], suffix: str | None = None) -> tuple[str, ...]:
    """Return what the names of images have beyond those of their labels; nothing where names match as they are.

    So a label ``case`` beside images ``case_0000`` and ``case_0001`` tells that these are two channels, and a label
    ``case_0000`` that they are two cases. One ending alone is none of several channels, such as ``T1w`` in BIDS.

    Args:
        labels: keys of labels.
        images: keys of images.
        suffix: what names of labels end with, in place of the usual words.

    Example:
        >>> channel_endings(["p1_seg", "p2_seg"], ["p1_t1", "p1_flair", "p2_flair", "p2_t1", "p3_t1"])
        ('flair', 't1')
    """
    if match(labels, images, suffix):
        return ()
    by_label = (_endings(bare_label(label, suffix), images) for label in labels)
    common = Counter(endings for endings in by_label if endings).most_common(1)
    return common[0][0] if common else ()


def group_channels(scans: Iterable[Scan], endings: Sequence[str], where: Path) -> list[Case]:
    """Return a case for each image, named without the ending of its channels.

    Args:
        scans: files.
        endings: of the channels in their order; with fewer than two, each file is a case, named without the ending.
        where: the folder that a message is to name.

    Raises:
        DatalistError: if a case lacks a channel, or a file has none of several endings.

    Example:
        >>> scans = [Scan(name, Path(f"{name}.nii")) for name in ("a_0000", "a_0001")]
        >>> [(case.name, len(case.images)) for case in group_channels(scans, ["0000", "0001"], Path())]
        [('a', 2)]
    """
    groups: dict[str, dict[str, Scan]] = defaultdict(dict)
    for scan in scans:
        name, ending = _split(scan.key, endings)
        if not ending and len(endings) > 1:
            cause = f"does not end with a channel ({', '.join(endings)}) as other images do"
            raise DatalistError(scan.path, cause, "rename it, or take it out of the folder")
        key = ending if len(endings) > 1 else ""
        if key in groups[name]:
            cause = f"has the same name as {groups[name][key].path.name} in its folder"
            raise DatalistError(scan.path, cause, "keep one of them, or rename it")
        groups[name][key] = scan
    for name, files in groups.items():
        missing = [ending for ending in endings if ending not in files] if len(endings) > 1 else []
        if missing:
            cause = f"the channel {missing[0]} of {name} is missing; it has {', '.join(sorted(files))} only"
            raise DatalistError(where, cause, "add this file, or take the other channels of this case out")
    return [Case(name, tuple(files[key].path for key in sorted(files))) for name, files in sorted(groups.items())]


def _endings(name: str, images: Iterable[str]) -> tuple[str, ...]:
    """Return the endings, without separators in front, of the images that begin with a name."""
    rest = [image[len(name) :] for image in images if image.startswith(name)]
    return tuple(sorted(text[1:] for text in rest if text[:1] in tuple(SEPARATORS) and "/" not in text[1:]))


def _split(key: str, endings: Iterable[str]) -> tuple[str, str]:
    """Return name and ending of an image; no ending where it has none."""
    for ending in sorted(endings, key=len, reverse=True):
        name = key.removesuffix(ending)
        if name != key and name[-1:] in tuple(SEPARATORS) and name[:-1]:
            return name[:-1], ending
    return key, ""
