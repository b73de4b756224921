# SPDX-License-Identifier: Apache-2.0
"""A user's mistake, told in one message."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metassl_monai.data import Problem

__all__ = [
    "UserError",
    "refuse",
    "refuse_problems",
    "silence_mistakes",
    "tell_and_exit",
    "tell_root_cause",
    "user_mistake",
]

_MOST_SHOWN = 20
_LEFT_ALONE = (
    "Another process of this job has ended, or did not answer within --timeout_minutes: what it says itself tells why. "
    "The same command with --resume True goes on from the last checkpoint.\n"
)


class UserError(ValueError):
    """A mistake of the user's: on a command line one message and exit status 1, elsewhere an exception like any other.

    MONAI wraps what is raised inside a config into a ``RuntimeError``, so that a server which runs a bundle finds it
    with :func:`user_mistake`.

    Args:
        code: the message; or the exit status of a command that has told its reason itself.
    """

    def __init__(self, code: str | int) -> None:
        super().__init__(code)
        self.code = code


def refuse(messages: Iterable[str]) -> None:
    """Raise all messages at once; go on where there is none.

    Raises:
        UserError: with the first 20 messages and the number of the others.
    """
    messages = list(messages)
    if messages:
        shown = [f"  {message}" for message in messages[:_MOST_SHOWN]]
        more = [f"  ... and {len(messages) - _MOST_SHOWN} more"] if len(messages) > _MOST_SHOWN else []
        raise UserError("\n".join(["Nothing was started:", *shown, *more]))


def refuse_problems(problems: Iterable[Problem]) -> None:
    """Raise all that is wrong with files; go on where nothing is.

    Raises:
        UserError: with one line a problem: the file, the cause and the remedy.
    """
    refuse(f"{problem.file}: {problem.cause}: {problem.remedy}" for problem in problems)


def user_mistake(error: BaseException | None) -> ValueError | None:
    """Return the mistake at the root of an exception: a ``ValueError`` that this package raised, such as `UserError`.

    MONAI's config machinery wraps one such as "preset=... is unknown" into several exceptions that bury it.

    Args:
        error: what was caught, for example around ``ConfigWorkflow.run()``.

    Returns:
        The mistake, whose text is the message; None where something else failed.

    Example:
        >>> try:
        ...     refuse(["nowhere: no such folder"])
        ... except ValueError as error:
        ...     print(user_mistake(error))
        Nothing was started:
          nowhere: no such folder
    """
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, ValueError) and _raised_here(error.__traceback__) else None


def tell_and_exit(error: Exception) -> None:
    """End the program with the message of a mistake and status 1; return where it is none.

    Raises:
        SystemExit: with the message, or with the exit status of a command that failed.
    """
    mistake = user_mistake(error)
    if mistake is not None:
        raise SystemExit(mistake.code if isinstance(mistake, UserError) else str(mistake)) from None


def tell_root_cause(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one message for a mistake, a ``sys.excepthook``. Anything else is printed whole, as always.

    Where a process of several waited in vain for another one, the last line says so.
    """
    mistake = user_mistake(error)
    if mistake is None:
        sys.__excepthook__(kind, error, trace)
        if _is_left_alone(error):
            sys.stderr.write(_LEFT_ALONE)
    else:
        sys.stderr.write(f"{mistake}\n")


def silence_mistakes() -> None:
    """Keep engines from logging a mistake, with its traceback, that :func:`tell_root_cause` is going to tell."""
    from monai.apps.utils import get_logger

    statistics = get_logger("monai.handlers.StatsHandler")  # passes nothing on to the handlers of the root
    for place in (statistics, *logging.getLogger().handlers):
        place.addFilter(_tells_no_mistake)


def _tells_no_mistake(record: logging.LogRecord) -> bool:
    # engines log an exception while they handle it; a warning at such a time tells of something that goes on
    error = sys.exc_info()[1]
    told = isinstance(error, SystemExit) or user_mistake(error) is not None
    return record.levelno < logging.ERROR or not told


def _is_left_alone(error: BaseException) -> bool:
    while error.__cause__ is not None:
        error = error.__cause__
    # gloo has no exceptions of its own; NCCL ends a process by itself and says so
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "Timed out waiting"))


def _raised_here(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    package = Path(__file__).parents[1]
    return trace is not None and package in Path(trace.tb_frame.f_code.co_filename).parents
