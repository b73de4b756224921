# SPDX-License-Identifier: Apache-2.0
"""What hands the first stage of a two-stage training to the second."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from .errors import UserError

__all__ = ["start_from"]


def start_from(path: str | Path, *networks: nn.Module) -> str:
    """Load the network that a first stage left into the networks of the second, and log the file's hash.

    Args:
        path: a flat state dict.
        networks: for example student and teacher.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        UserError: when the file is missing or of another network.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()  # the first process has written the file
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no network of a first stage: run the id 'pretraining' first, or correct the path.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        for network in networks:
            network.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{path}: is of another network than the config's: remove it, or correct the path.") from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    logging.getLogger(__name__).info("starting from %s, SHA-256 %s", path, digest)
    return digest
