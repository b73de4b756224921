# SPDX-License-Identifier: Apache-2.0
"""Which label belongs to which image, by their names."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

__all__ = ["IMAGE_WORDS", "LABEL_WORDS", "bare_image", "bare_label", "match", "nearest"]

LABEL_WORDS = (
    *("label", "labels", "labelmap", "seg", "segmentation", "dseg", "gt", "groundtruth", "truth"),
    *("mask", "masks", "manual", "annotation", "anno", "roi", "contour"),
)
IMAGE_WORDS = ("image", "images", "img", "imgs", "im", "imaging", "scan", "scans", "volume", "volumes", "vol")
BIDS_ENTITIES = re.compile(r"_(?:space|desc|label|res|den|seg|atlas)-[^_/]+")
"""What names of labels in BIDS say beyond those of images."""

_SEPARATORS = "-_. "


def bare_label(key: str, suffix: str | None = None) -> str:
    """Return the name of a label without what says that it is one.

    Args:
        key: the path in its folder, without the suffix of its format.
        suffix: what names of labels end with, in place of the usual words.

    Example:
        >>> bare_label("a/scan 1_Seg"), bare_label("label0007"), bare_label("p1/mask"), bare_label("x_hand", "_hand")
        ('a/scan 1', '0007', 'p1', 'x')
    """
    if suffix is not None:
        return key.removesuffix(suffix)
    bare = _bare(key, LABEL_WORDS)
    return BIDS_ENTITIES.sub("", bare) if bare.rpartition("/")[2].startswith("sub-") else bare


def bare_image(key: str) -> str:
    """Return the name of an image without a word that says that it is one.

    Example:
        >>> bare_image("img0007"), bare_image("p1/image"), bare_image("volume-3"), bare_image("imagine")
        ('0007', 'p1', '3', 'imagine')
    """
    return _bare(key, IMAGE_WORDS)


def match(labels: Iterable[str], images: Iterable[str], suffix: str | None = None) -> dict[str, str]:
    """Return the image of each label, by their keys; labels without image are left out.

    Equal names come first, then names that are equal without the words for labels and images, then, for files that
    do not lie in sub-folders like the other, the file name alone where only one image has it.

    Example:
        >>> match(["a", "b_seg", "s1/d"], ["a", "img_b", "s1/d", "s2/d"])
        {'a': 'a', 'b_seg': 'img_b', 's1/d': 's1/d'}
    """
    labels, images = list(labels), list(images)
    found: dict[str, str] = {}
    spellings: list[tuple[Callable[[str], str], Callable[[str], str]]] = [
        (str, str),
        (lambda key: bare_label(key, suffix), str),
        (lambda key: bare_label(key, suffix), bare_image),
    ]
    for of_label, of_image in spellings:
        known = _only(images, of_image)
        found |= {label: known[of_label(label)] for label in labels if label not in found and of_label(label) in known}
    names = _only(images, lambda key: posixpath.basename(bare_image(key)))
    for label in labels:
        image = names.get(posixpath.basename(bare_label(label, suffix)))
        if label not in found and image is not None and ("/" in label) != ("/" in image):
            found[label] = image
    return {label: found[label] for label in labels if label in found}


def nearest(key: str, others: Iterable[str]) -> str | None:
    """Return the name that is most like this one; None where there is none.

    Example:
        >>> nearest("patient_01", ["scan", "patient-01"])
        'patient-01'
    """
    return next(iter(difflib.get_close_matches(key, list(others), n=1, cutoff=0.0)), None)


def _bare(key: str, words: tuple[str, ...]) -> str:
    folder, name = posixpath.split(key)
    if name.lower() in words:
        return folder or key
    any_word = "|".join(sorted(words, key=len, reverse=True))
    for pattern in (rf"(.+)[{_SEPARATORS}](?:{any_word})", rf"(?:{any_word})(?:[{_SEPARATORS}](.+)|(\d.*))"):
        found = re.fullmatch(pattern, name, re.IGNORECASE)
        if found:
            return posixpath.join(folder, next(part for part in found.groups() if part))
    return key


def _only(images: Iterable[str], spelling: Callable[[str], str]) -> Mapping[str, str]:
    """Return the image of each spelling that only one image has."""
    groups: dict[str, list[str]] = defaultdict(list)
    for image in images:
        groups[spelling(image)].append(image)
    return {name: group[0] for name, group in groups.items() if len(group) == 1}
