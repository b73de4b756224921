# SPDX-License-Identifier: Apache-2.0
"""Copies of modules."""

from __future__ import annotations

import copy

from torch import nn

__all__ = ["fresh_copy"]


def fresh_copy(module: nn.Module) -> nn.Module:
    """Copy a module and give the copy initial weights of its own, drawn as the module's were.

    Each part draws anew by its ``reset_parameters``, a whole after its parts: so a decoder that starts from other
    weights than its convolutions would by themselves has the last word.
    """
    fresh = copy.deepcopy(module)
    for part in reversed(list(fresh.modules())):
        reset = getattr(part, "reset_parameters", None)
        if reset is not None:
            reset()
    return fresh
