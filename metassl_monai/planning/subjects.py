# SPDX-License-Identifier: Apache-2.0
"""Whose image it is: by a regular expression, from names as in BIDS or of frames, or one image one subject."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from metassl_monai.data import DatalistError

from .found import Case

__all__ = ["name_subjects", "shared_beginnings"]

BIDS = re.compile(r"((?:.*?/)??sub-[^\W_]+)(?=[_/.-]|$)", re.DOTALL)

FRAMES = re.compile(
    r"(.+?)(?:[_-](?:frame|visit|session|ses|timepoint|time|tp|phase|slice)[_-]?\d+|[_-]E[DS])+",
    re.DOTALL | re.IGNORECASE,
)
"""Names that end with the frame of a film, a visit or a slice."""


def name_subjects(cases: Iterable[Case], pattern: str | None, where: Path) -> list[Case]:
    """Return the cases with their subjects.

    Args:
        cases: cases; those whose layout names the subject keep it, unless there is a pattern.
        pattern: a regular expression whose first group, anywhere in a case's name, is its subject. Without one, names
            such as ``sub-01_ses-1_T1w`` or ``site/sub-01/ses-1/scan`` give ``sub-01`` and ``site/sub-01``, those that
            end with a frame, visit or slice, such as ``p01_frame12``, what is in front of it, and any other name is a
            subject of its own.
        where: the folder that a message is to name.

    Raises:
        DatalistError: if the pattern is none, has no group, or does not match a case.

    Example:
        >>> cases = [Case("p1_rest", ()), Case("p1_stress", ())]
        >>> [case.subject for case in name_subjects(cases, "(p[0-9]+)_", Path("scans"))]
        ['p1', 'p1']
        >>> [case.subject for case in name_subjects(cases, None, Path("scans"))]
        ['p1_rest', 'p1_stress']
    """
    cases = list(cases)
    if pattern is None:
        return [case._replace(subject=case.subject or _subject(case.name)) for case in cases]
    expression = _compile(pattern, where)
    found = {case.name: expression.search(case.name) for case in cases}
    strangers = [name for name, text in found.items() if text is None or not text[1]]
    if strangers:
        cause = f"the subject pattern {pattern!r} matches {_count(strangers, len(cases))}, such as {strangers[0]!r}"
        raise DatalistError(where, cause, "correct --subject: its first (group) must find the subject in each name")
    return [case._replace(subject=text[1]) for case in cases if (text := found[case.name])]


def shared_beginnings(cases: Iterable[Case]) -> str | None:
    """Return a remark where single-image subjects have names that look like several images of one; None elsewhere.

    Example:
        >>> shared_beginnings([Case(name, (), None, name) for name in ("p01_rest", "p01_stress")])[:51]
        'p01_rest and p01_stress are taken for two subjects;'
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        beginning = re.fullmatch(r"(.*\d)[_-][^/]*", case.name)
        if beginning and case.subject == case.name:
            groups[beginning[1]].append(case.name)
    pairs = [names for names in groups.values() if len(names) > 1]
    if not pairs:
        return None
    first, second = pairs[0][:2]
    return (
        f"{first} and {second} are taken for two subjects; if they are one, pass --subject with a regular expression "
        "whose first group is the subject, so that training and validation do not share it"
    )


def _subject(name: str) -> str:
    found = BIDS.match(name) or FRAMES.fullmatch(name)
    return found[1] if found else name


def _compile(pattern: str, where: Path) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        cause = f"the subject pattern {pattern!r} is no regular expression ({error})"
        raise DatalistError(where, cause, r"write one such as --subject '(patient\d+)_'") from None
    if expression.groups < 1:
        cause = f"the subject pattern {pattern!r} has no group"
        raise DatalistError(where, cause, r"put the subject in parentheses: --subject '(patient\d+)_'")
    return expression


def _count(strangers: list[str], total: int) -> str:
    return f"none of {total} names" if len(strangers) == total else f"not {len(strangers)} of {total} names"
