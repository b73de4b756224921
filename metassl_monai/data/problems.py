# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a file: a value where all are gathered, an exception where the first one ends it."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["DatalistError", "Problem"]


class Problem(NamedTuple):
    """One thing that is wrong: in which file, what, and what to do about it."""

    file: str
    cause: str
    remedy: str


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

    def __init__(self, file: str | os.PathLike[str], cause: str, remedy: str) -> None:
        super().__init__(os.fspath(file), cause, remedy)

    @property
    def problem(self) -> Problem:
        """What is wrong, as a value."""
        return Problem(*self.args)

    def __str__(self) -> str:
        file, cause, remedy = self.args
        return f"{file}: {cause}; {remedy}"
