# SPDX-License-Identifier: Apache-2.0
"""Which process of a distributed run this is."""

from __future__ import annotations

import torch.distributed as dist

__all__ = ["is_first_rank"]


def is_first_rank() -> bool:
    """Say whether this process is the first, or the only one."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
