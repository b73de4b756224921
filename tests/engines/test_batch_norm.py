# SPDX-License-Identifier: Apache-2.0
"""Batch normalization over processes; that it normalizes is PyTorch's, and needs two GPUs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from metassl_monai.engines import synchronize_batch_norm


def test_networks_keep_their_parameters_and_names(make_method: Callable) -> None:
    method = make_method("cps")
    before = copy.deepcopy(method.state_dict())
    parameters = list(method.parameters())
    network = method.inference_network
    assert synchronize_batch_norm(method, torch.device("cuda")) is method
    assert method.inference_network is network
    assert [kept is known for kept, known in zip(method.parameters(), parameters, strict=True)] == [True] * len(
        parameters
    )
    torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0)
    norms = [part for part in method.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 2
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


def test_a_processor_is_refused(make_method: Callable) -> None:
    with pytest.raises(ValueError, match=r"--sync_batch_norm True needs CUDA, and the device is cpu: leave it out"):
        synchronize_batch_norm(make_method("cps"), torch.device("cpu"))
