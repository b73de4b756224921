# SPDX-License-Identifier: Apache-2.0
"""A user's mistake, told in one message."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(SystemExit):
    """Ends the program with a message and exit status 1, without a traceback.

    A ``SystemExit`` because bundles are run by MONAI, which wraps any ``Exception`` of a config expression into a
    traceback of its own; this passes through.
    """
