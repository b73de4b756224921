# SPDX-License-Identifier: Apache-2.0
"""How a teacher follows its student."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ema_update"]


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Move ``teacher`` to ``keep * teacher + (1 - keep) * student``.

    Buffers (batch statistics) are copied: averaged weights with statistics of their own drift apart.
    ``torch.optim.swa_utils.AveragedModel`` does the same but keeps its step count on the device, which costs a
    synchronization each step; the trainer knows the step as a number.
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - keep)
    buffers = list(teacher.buffers()), list(student.buffers())
    if buffers[0]:
        torch._foreach_copy_(*buffers)
