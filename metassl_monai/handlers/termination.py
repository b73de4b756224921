# SPDX-License-Identifier: Apache-2.0
"""A training that is stopped from outside and can still say so."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine, Events

from .ranks import is_distributed

__all__ = ["stop_at_safe_points"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, batch schedulers, a terminal that goes away


def stop_at_safe_points(*engines: Engine, tell: Callable[[], str] | None = None) -> None:
    """Let the signals that stop a program stop these engines after an iteration; a second signal stops at once.

    When the first engine completes, the signals do again what they did before. The exit status is 128 + number, as
    shells have it; handlers see a ``SystemExit``. (An exception that a signal raises in the middle of an iteration may
    be caught by whatever runs there.) A handler of the program's own is left alone. So are distributed runs: a process
    that waits for others in a collective call would not end before they answer.

    Args:
        engines: the engines, such as a trainer and its validator.
        tell: returns what to print on standard error when it has stopped, such as where to go on.
    """
    if is_distributed() or threading.current_thread() is not threading.main_thread():
        return
    stop = _Stop(tell)
    for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):  # Windows has no SIGHUP
        known = signal.getsignal(number)
        if known in (signal.SIG_DFL, signal.default_int_handler) or (tell and isinstance(known, _Stop)):
            stop.before[number] = signal.signal(number, stop)
    for engine in engines:
        engine.add_event_handler(Events.ITERATION_COMPLETED, stop.leave)
    engines[0].add_event_handler(Events.COMPLETED, stop.restore)


class _Stop:
    """A signal handler of the process that made it; worker processes that inherit it just end."""

    def __init__(self, tell: Callable[[], str] | None) -> None:
        self.tell = tell
        self.process = os.getpid()
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def __call__(self, number: int, frame: Any) -> None:
        if os.getpid() != self.process:
            raise KeyboardInterrupt
        again, self.number = self.number is not None, number
        if again:
            self.leave()

    def leave(self) -> None:
        """End the program if it was told to."""
        if self.number is not None:
            told = self.tell() if self.tell else ""
            sys.stderr.write(f"\nStopped by {signal.Signals(self.number).name}. {told}\n")
            sys.exit(128 + self.number)

    def restore(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
