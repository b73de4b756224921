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
    """Put a method into evaluation mode, without gradient, with random numbers of its own; then restore it all.

    The random streams of Python, NumPy and torch, and the random transforms that the method holds, go on afterwards
    where they stood.

    Args:
        method: the method.
        device: where it runs.
        seed: seed of the random numbers within.
    """
    training, python, numpy = method.training, random.getstate(), np.random.get_state()
    held = [
        (module, name, value)
        for module in method.modules()
        for name, value in vars(module).items()
        if isinstance(value, Randomizable)
    ]
    method.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
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
