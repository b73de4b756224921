# SPDX-License-Identifier: Apache-2.0
"""The end of a distributed training."""

from __future__ import annotations

import atexit
import gc

import torch.distributed as dist

__all__ = ["leave_process_group"]


def leave_process_group() -> None:
    """Leave the process group, and see to it that its threads end before Python does.

    ``DistributedDataParallel`` keeps the group, and with it gloo's threads, until it is collected itself. Where that
    happens while Python ends, a thread that still has to free a tensor aborts the process after all its work is done
    (https://github.com/pytorch/pytorch/issues/190489). So what is left of the run is collected just before.

    Raises:
        ValueError: without a process group, from PyTorch.

    Example:
        >>> import pathlib, tempfile
        >>> rendezvous = pathlib.Path(tempfile.mkdtemp(), "rendezvous").as_uri()
        >>> dist.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=1)
        >>> leave_process_group()
        >>> dist.is_initialized()
        False
    """
    dist.destroy_process_group()
    atexit.register(gc.collect)
