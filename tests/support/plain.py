# SPDX-License-Identifier: Apache-2.0
"""Arithmetic in plain Python, voxel by voxel, that the slow forms of the methods are written in."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

Voxel = list[float]


def voxels(logits: Tensor) -> list[Voxel]:
    """``(B, C, *spatial)`` as a list of voxels."""
    return [voxel.tolist() for image in logits.detach() for voxel in image.flatten(1).T]


def softmax(voxel: Voxel, temperature: float = 1.0) -> Voxel:
    exponentials = [math.exp(value / temperature) for value in voxel]
    return [value / sum(exponentials) for value in exponentials]


def top(voxel: Voxel) -> int:
    return max(range(len(voxel)), key=lambda c: voxel[c])


def is_learned(term: Tensor, module: nn.Module) -> bool:
    """Whether a term gives a module a gradient other than zero."""
    values = torch.autograd.grad(term, list(module.parameters()), retain_graph=True, allow_unused=True)
    return any(value is not None and bool(value.ne(0).any()) for value in values)


def touched(method: nn.Module, term: Tensor, parts: Iterable[str]) -> set[str]:
    """Submodules that a term gives a gradient other than zero."""
    method.zero_grad(set_to_none=True)
    term.backward(retain_graph=True)
    return {
        part
        for part in parts
        if any(p.grad is not None and bool(p.grad.ne(0).any()) for p in method.get_submodule(part).parameters())
    }
