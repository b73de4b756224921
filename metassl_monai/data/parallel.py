# SPDX-License-Identifier: Apache-2.0
"""Cases that are read by several threads at a time: unpacking, converting and comparing leave Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Lock
from typing import TypeVar

from metassl_monai.progress import Progress

from .pictures import large_pictures
from .sizes import memory_to_read

__all__ = ["for_each_case"]

Case = TypeVar("Case")
Found = TypeVar("Found")

_MOST = 8


def for_each_case(
    look: Callable[[Case], Found],
    cases: Sequence[Case],
    files_of: Callable[[Case], Sequence[str]],
    progress: bool = False,
    unit: str = "case",
) -> Iterator[Found]:
    """Yield what a function finds in each case, in their order; it reads several cases at a time.

    Of cases that take much of the machine's memory only one is read at a time.

    Args:
        look: reads a case.
        cases: the cases.
        files_of: names the files of a case.
        progress: show a bar with the remaining time.
        unit: what the bar counts.

    Example:
        >>> list(for_each_case(len, ["a", "bc"], lambda case: []))
        [1, 2]
    """
    threads = min(_MOST, os.cpu_count() or 1)
    one_at_a_time = Lock()

    def found(case: Case) -> Found:
        share = sum(map(memory_to_read, files_of(case))) if threads > 1 else 0
        with one_at_a_time if share > 0.5 / threads else nullcontext():
            return look(case)

    pool = ThreadPoolExecutor(threads)
    try:
        with large_pictures():  # once for all threads, which would undo it for each other
            yield from Progress(pool.map(found, cases), "checking", len(cases), unit=unit, disable=not progress)
    finally:
        pool.shutdown(cancel_futures=True)
