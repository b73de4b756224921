# SPDX-License-Identifier: Apache-2.0
"""Which process of a distributed run this is.

Ignite's ``idist`` would say it too, but keeps a process group for good: after its end it fails.
"""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

__all__ = ["is_distributed", "is_first_rank", "of_all_ranks", "rank", "wait_for_all_ranks"]

T = TypeVar("T")


def is_distributed() -> bool:
    """Say whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the number of this process, 0 for the only one."""
    return dist.get_rank() if is_distributed() else 0


def is_first_rank() -> bool:
    """Say whether this process is the first, or the only one."""
    return rank() == 0


def of_all_ranks(value: T) -> list[T]:
    """Return the values of all processes, by rank."""
    if not is_distributed():
        return [value]
    gathered: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def wait_for_all_ranks() -> None:
    """Wait until all processes have come here."""
    if is_distributed():
        dist.barrier()
