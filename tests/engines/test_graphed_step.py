# SPDX-License-Identifier: Apache-2.0
"""A step that cannot be a CUDA graph is refused by name; what a graph does is measured where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metassl_monai.engines import GraphedStep, SemiSupervisedTrainer
from metassl_monai.losses import metassl_losses
from metassl_monai.methods import BidirectionalCopyPaste, Supervised


def method(kind):
    return kind(nn.Conv2d(1, 2, 1), *metassl_losses(2), ramp=lambda step: 1.0)


def trainer(**options):
    built = method(Supervised)
    optimizer = torch.optim.SGD(built.parameters(), lr=0.1)
    return SemiSupervisedTrainer("cpu", 1, [], built, optimizer, cuda_graph=True, **options)


def test_a_graph_needs_cuda():
    with pytest.raises(ValueError, match=r"cuda_graph needs a CUDA device, and device is cpu"):
        trainer()


def test_a_method_that_draws_on_the_processor_is_refused_by_name():
    with pytest.raises(ValueError, match=r"BidirectionalCopyPaste cannot be recorded.*paste draws.*cuda_graph"):
        GraphedStep(method(BidirectionalCopyPaste), lambda batch, step: None)
