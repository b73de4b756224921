# SPDX-License-Identifier: Apache-2.0
"""A user's mistake, told in one message."""

from __future__ import annotations

from collections.abc import Callable

from metassl_monai.data import DatalistError

__all__ = ["UserError", "tell_mistakes"]


class UserError(SystemExit):
    """Ends the program with a message and exit status 1, without a traceback.

    A ``SystemExit`` because bundles are run by MONAI, which wraps any ``Exception`` of a config expression into a
    traceback of its own; this passes through.
    """


def tell_mistakes(program: Callable[[], None]) -> None:
    """Run a program; what is wrong with a datalist ends it in one message too."""
    try:
        program()
    except DatalistError as error:
        raise UserError(str(error)) from None
