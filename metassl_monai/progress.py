# SPDX-License-Identifier: Apache-2.0
"""Progress bars, which become a line a minute where no terminal shows them."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

__all__ = ["Progress"]

_BETWEEN_LINES = 60.0
_LINE = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed} gone, {remaining} left, {rate_fmt}{postfix}"


class Progress(tqdm):  # type: ignore[misc]
    """A bar of tqdm in a terminal; in a log file a line a minute and one in the end.

    A bar rewrites its line, so that a file of a day's training would hold one line of megabytes. tqdm's environment
    variables hold as ever: ``TQDM_DISABLE=1`` switches all bars off.

    Args:
        *args: as of ``tqdm.tqdm``, as all that follow.

    Example:
        >>> list(Progress(range(3), desc="counting", unit="number"))
        [0, 1, 2]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.in_lines = not sys.stderr.isatty()
        if self.in_lines:
            kwargs |= {"mininterval": _BETWEEN_LINES, "maxinterval": _BETWEEN_LINES, "delay": _BETWEEN_LINES}
            kwargs |= {"leave": False, "bar_format": _LINE}
        super().__init__(*args, **kwargs)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show where the loop stands; tqdm clears with an empty message what is no line to clear here."""
        if not self.in_lines:
            return bool(super().display(msg, pos))
        if msg is None:
            self.fp.write(f"{self}\n")
            self.fp.flush()
        return False

    def close(self) -> None:
        """Leave the finished bar, or the last line."""
        if self.in_lines and not self.disable:
            self.display()
        super().close()
