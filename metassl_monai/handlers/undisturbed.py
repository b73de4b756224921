# SPDX-License-Identifier: Apache-2.0
"""Looking at a method in the midst of its training without leaving a trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from monai.transforms import Randomizable
from torch import nn

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(method: nn.Module, device: torch.device, seed: int = 0) -> Iterator[None]:
    """Let a method judge images by its networks as they train, without gradient and with random numbers of its own.

    The method and its losses are put into evaluation mode, so that no threshold moves and no image is mixed for its own
    sake. Its networks are in training mode: a teacher has the student's batch statistics beside weights that lag
    behind, teaches by the statistics of the batch, and in evaluation mode may see nothing at all.

    The random streams of Python, NumPy and torch, the random transforms that the method holds, and its buffers go on
    afterwards where they stood.

    Args:
        method: the method.
        device: where it runs.
        seed: seed of the random numbers within.
    """
    buffers = [buffer.clone() for buffer in method.buffers()]
    training, python, numpy = method.training, random.getstate(), np.random.get_state()
    held = [
        (module, name, value)
        for module in method.modules()
        for name, value in vars(module).items()
        if isinstance(value, Randomizable)
    ]
    method.eval()
    for name, child in method.named_children():
        child.train(name not in ("labeled_losses", "unlabeled_losses"))
    for module in method.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()  # it would wait for the other processes, which do not come here
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.no_grad(),
            torch.compiler.set_stance("force_eager"),  # compiled networks would be compiled once more, without gradient
        ):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            for module, name, value in held:
                # a copy, since a transform keeps more than its random state: its last draw, further transforms
                setattr(module, name, copy.deepcopy(value).set_random_state(seed))
            yield
    finally:
        for module, name, value in held:
            setattr(module, name, value)
        random.setstate(python)
        np.random.set_state(numpy)
        method.train(training)
        for buffer, before in zip(method.buffers(), buffers, strict=True):
            buffer.copy_(before)
