# SPDX-License-Identifier: Apache-2.0
"""A terminated process that can still say so."""

from __future__ import annotations

import signal
import sys
import threading

import torch.distributed as dist

__all__ = ["terminating_as_exit"]


def terminating_as_exit() -> None:
    """Turn SIGTERM into a ``SystemExit`` of status 143, which handlers see as an exception of the engine.

    A handler of the program's own is left alone. So are distributed runs: a process that waits for others in a
    collective call would not end before they answer.
    """
    alone = not (dist.is_available() and dist.is_initialized())
    in_charge = threading.current_thread() is threading.main_thread()
    if alone and in_charge and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
