# SPDX-License-Identifier: Apache-2.0
"""Reading the next case while the network works on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from monai.data import DataLoader

__all__ = ["ReadAheadDataLoader", "read_ahead"]

Case = TypeVar("Case")
Found = TypeVar("Found")


def read_ahead(read: Callable[[Case], Found], cases: Iterable[Case]) -> Iterator[Found]:
    """Yield what a function finds in each case, in their order; the next case is read, in a thread, meanwhile.

    An error is raised where what could not be read would come. Memory holds one case more.

    Args:
        read: reads a case.
        cases: the cases.

    Example:
        >>> list(read_ahead(len, ["a", "bc"]))
        [1, 2]
    """
    with ThreadPoolExecutor(1, "read ahead") as reader:
        following: Future[Found] | None = None
        for case in cases:
            found, following = following, reader.submit(read, case)
            if found is not None:
                yield found.result()
        if following is not None:
            yield following.result()


class ReadAheadDataLoader(DataLoader):
    """A MONAI ``DataLoader`` that reads one batch ahead, see :func:`read_ahead`.

    Whole volumes are too large for worker processes, which hand over what they read through shared memory, and MONAI's
    ``ThreadDataLoader`` ends without a word where reading fails. Arguments are those of ``DataLoader``.

    Example:
        >>> [batch.tolist() for batch in ReadAheadDataLoader([1, 2, 3], batch_size=2)]
        [[1, 2], [3]]
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        return read_ahead(lambda number: next(batches), range(len(self)))
