# SPDX-License-Identifier: Apache-2.0
"""Nothing that is done within leaves a trace without."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metassl_monai.handlers.undisturbed import undisturbed
from metassl_monai.losses import CrossEntropyDiceLoss, MetaSSLUnlabeledLoss
from metassl_monai.methods import BidirectionalCopyPaste


class Network(nn.Sequential):
    """One whose forward is not torch's own, which is never compiled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


@pytest.fixture
def method() -> BidirectionalCopyPaste:
    network = Network(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    method = BidirectionalCopyPaste(network, CrossEntropyDiceLoss(), MetaSSLUnlabeledLoss(2), ramp=lambda step: 1.0)
    method(batch(), 0)
    return method


def batch() -> dict[str, dict[str, torch.Tensor]]:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"labeled": {"image": images, "label": (images > 0.5).long()}, "unlabeled": {"image": images}}


def draws() -> list[float]:
    return [random.random(), np.random.random(), torch.rand(()).item()]


def test_random_streams_and_state_go_on_where_they_stood(method: BidirectionalCopyPaste) -> None:
    results = []
    for disturbed in (False, True):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        method.paste.set_random_state(1)
        before = {key: value.clone() for key, value in method.state_dict().items()}
        if disturbed:
            with undisturbed(method, torch.device("cpu")):
                assert not method.training
                assert not any(module.training for module in method.unlabeled_losses.modules())
                assert all(module.training for module in [*method.network.modules(), *method.teacher.modules()])
                prediction = method.pairs(batch(), 3).prediction
                assert not prediction.requires_grad
                draws()
        assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
        assert all(module.training for module in method.modules())
        results.append([*draws(), method.paste.R.random()])
    assert results[0] == results[1]


def test_random_numbers_within_are_always_the_same(method: BidirectionalCopyPaste) -> None:
    found = []
    for _ in range(2):
        with undisturbed(method, torch.device("cpu")):
            found.append([*draws(), method.paste.R.random()])
        draws()
    assert found[0] == found[1]


def test_an_error_within_leaves_no_trace_either(method: BidirectionalCopyPaste) -> None:
    paste, state = method.paste, torch.get_rng_state()
    with pytest.raises(RuntimeError), undisturbed(method, torch.device("cpu")):
        torch.rand(2) @ torch.rand(3)
    assert method.paste is paste
    assert method.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_a_synchronized_norm_does_not_wait_for_processes_that_do_not_come(method: BidirectionalCopyPaste) -> None:
    method.network[1] = nn.SyncBatchNorm(4)
    with undisturbed(method, torch.device("cpu")):
        assert not method.network[1].training
        assert method.teacher[1].training
    assert method.network[1].training


def test_compiled_networks_are_not_compiled_once_more(method: BidirectionalCopyPaste) -> None:
    compiled = []

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        compiled.append(graph)
        return graph.forward

    method.network.compile(backend=count)
    with undisturbed(method, torch.device("cpu")):
        method.pairs(batch(), 3)
    assert compiled == []
    method(batch(), 3)
    assert len(compiled) > 0
