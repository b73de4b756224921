# SPDX-License-Identifier: Apache-2.0
"""Batch normalization over the images of all processes of a distributed training."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["synchronize_batch_norm"]


def synchronize_batch_norm(method: nn.Module, device: torch.device) -> nn.Module:
    """Let the batch normalization of all networks of a method take its statistics over all processes, in place.

    Weights, statistics and their names stay, so that networks can be loaded with and without. Worth it where a process
    has few images a step, as with 3D patches: the statistics of two images are noisy.

    Args:
        method: the method, not yet within ``DistributedDataParallel``.
        device: where it will run.

    Returns:
        The same method.

    Raises:
        ValueError: for a device on which PyTorch cannot do so.

    Example:
        >>> from metassl_monai.networks import UNet2D
        >>> network = synchronize_batch_norm(UNet2D(), torch.device("cuda"))
        >>> sum(isinstance(part, nn.SyncBatchNorm) for part in network.modules())
        18
    """
    if device.type != "cuda":
        raise ValueError(f"--sync_batch_norm True needs CUDA, and the device is {device}: leave it out.")
    synchronized: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    return synchronized
