# SPDX-License-Identifier: Apache-2.0
"""A user's mistake, told in one message."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from metassl_monai.data import DatalistError, Problem

__all__ = ["UserError", "refuse", "refuse_problems", "tell_mistakes", "tell_root_cause"]

_MOST_SHOWN = 20


class UserError(SystemExit):
    """Ends the program with a message and exit status 1, without a traceback.

    A ``SystemExit`` because bundles are run by MONAI, which wraps any ``Exception`` of a config expression into a
    traceback of its own; this passes through.
    """


def refuse(messages: Iterable[str]) -> None:
    """End the program with all messages at once; go on where there is none.

    Raises:
        UserError: with the first 20 messages and the number of the others.
    """
    messages = list(messages)
    if messages:
        shown = [f"  {message}" for message in messages[:_MOST_SHOWN]]
        more = [f"  ... and {len(messages) - _MOST_SHOWN} more"] if len(messages) > _MOST_SHOWN else []
        raise UserError("\n".join(["Nothing was started:", *shown, *more]))


def refuse_problems(problems: Iterable[Problem]) -> None:
    """End the program with all that is wrong with files; go on where nothing is.

    Raises:
        UserError: with one line a problem: the file, the cause and the remedy.
    """
    refuse(f"{problem.file}: {problem.cause}: {problem.remedy}" for problem in problems)


def tell_mistakes(program: Callable[[], None]) -> None:
    """Run a program; what is wrong with a datalist ends it in one message too."""
    try:
        program()
    except DatalistError as error:
        raise UserError(str(error)) from None


def tell_root_cause(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one message for a mistake that this package found under MONAI's config machinery.

    A ``sys.excepthook``: MONAI wraps a ``ValueError`` such as "preset=... is unknown" into several tracebacks
    that bury it. Anything else is printed whole, as always.
    """
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, ValueError) and _raised_here(root.__traceback__):
        sys.stderr.write(f"{root}\n")
    else:
        sys.__excepthook__(kind, error, trace)


def _raised_here(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    package = Path(__file__).parents[1]
    return trace is not None and package in Path(trace.tb_frame.f_code.co_filename).parents
