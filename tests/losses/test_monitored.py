# SPDX-License-Identifier: Apache-2.0
"""A monitored loss trains as if nobody watched, and shows what the MetaSSL loss would have seen."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from metassl_monai.losses import (
    CrossEntropyDiceLoss,
    KLDivergenceLoss,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    MonitoredLoss,
    PseudoLabelLoss,
    ReleasedLabeledLoss,
    SoftmaxMSELoss,
    metassl_losses,
)

Build = Callable[[], nn.Module]
PAIRS: dict[str, tuple[Build, Build]] = {
    "pseudo-label": (PseudoLabelLoss, lambda: MetaSSLUnlabeledLoss(3)),
    "sure-pseudo-label": (lambda: PseudoLabelLoss(0.6), lambda: metassl_losses(3, "ref_3d")[1]),
    "softmax-mse": (SoftmaxMSELoss, lambda: metassl_losses(3, threshold="freematch")[1]),
    "kl-divergence": (KLDivergenceLoss, lambda: metassl_losses(3, threshold="flexmatch")[1]),
    "cross-entropy-dice": (CrossEntropyDiceLoss, lambda: MetaSSLLabeledLoss(3)),
    "cross-entropy-dice-self": (CrossEntropyDiceLoss, lambda: metassl_losses(3, "ref_mt2d")[0]),
    "metassl": (lambda: MetaSSLLabeledLoss(3, mode="consistency"), lambda: MetaSSLLabeledLoss(3)),
}
every_pair = pytest.mark.parametrize(("plain", "watcher"), list(PAIRS.values()), ids=list(PAIRS))


def arguments_for(watcher: nn.Module, seed: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional arguments of a labeled or an unlabeled loss, the input first, and a mask."""
    random = torch.Generator().manual_seed(seed)
    input, reference = (2 * torch.randn(2, 3, 5, 4, generator=random) for _ in range(2))
    target = torch.randint(0, 3, (2, 1, 5, 4), generator=random)
    mask = torch.rand(2, 1, 5, 4, generator=random) < 0.7
    positional = (input, target, reference) if isinstance(watcher, MetaSSLLabeledLoss) else (input, reference)
    return positional, {"mask": mask}


@every_pair
def test_value_and_gradient_are_those_of_the_plain_loss(plain, watcher):
    monitored, alone = MonitoredLoss(plain(), watcher()), plain()
    for seed in range(3):
        (input, *others), options = arguments_for(monitored.metassl, seed)
        results = []
        for loss in (monitored, alone):
            leaves = [input.clone().requires_grad_(), *(t.clone() for t in others)]
            leaves[-1].requires_grad_()  # the reference: only one loss passes a gradient to it
            value = loss(*leaves, **options)
            value.backward()
            results.append((value.detach(), leaves[0].grad, leaves[-1].grad))
        (value, gradient, other_gradient), (expected, expected_gradient, expected_other) = results
        assert torch.equal(value, expected)
        assert torch.equal(gradient, expected_gradient)
        assert (other_gradient is None) == (expected_other is None)
        assert other_gradient is None or torch.equal(other_gradient, expected_other)


@every_pair
def test_regions_counts_and_thresholds_are_those_of_the_metassl_loss(plain, watcher):
    monitored, alone = MonitoredLoss(plain(), watcher()), watcher()
    assert monitored.regions is monitored.region_counts is monitored.foreground_counts is None
    for seed in range(3):
        before = copy.deepcopy(monitored.partition.threshold.values)
        positional, options = arguments_for(alone, seed)
        monitored(*positional, **options)
        alone(*positional, **options)
        for name in ("regions", "region_counts", "foreground_counts"):
            assert torch.equal(getattr(monitored, name), getattr(alone, name))
        assert torch.equal(monitored.partition.threshold.values, alone.partition.threshold.values)
        assert not torch.equal(monitored.partition.threshold.values, before)
    assert monitored.partition is monitored.metassl.partition


@every_pair
def test_evaluation_moves_nothing(plain, watcher):
    monitored = MonitoredLoss(plain(), watcher())
    positional, options = arguments_for(monitored.metassl, 0)
    monitored(*positional, **options)
    before = copy.deepcopy(monitored.state_dict())
    monitored.eval()
    positional, options = arguments_for(monitored.metassl, 1)
    monitored(*positional, **options)
    torch.testing.assert_close(dict(monitored.state_dict()), dict(before), rtol=0, atol=0)
    regions = monitored.regions
    monitored(*positional, **options)
    assert torch.equal(monitored.regions, regions)


def test_the_state_is_that_of_the_watcher_and_survives_a_checkpoint():
    monitored, fresh = (MonitoredLoss(PseudoLabelLoss(), MetaSSLUnlabeledLoss(3)) for _ in range(2))
    positional, options = arguments_for(monitored.metassl, 0)
    monitored(*positional, **options)
    assert list(monitored.state_dict()) == ["metassl.partition.threshold.values"]
    fresh.load_state_dict(monitored.state_dict())
    assert torch.equal(fresh.partition.threshold.values, monitored.partition.threshold.values)


def test_label_and_ramp_reach_both_losses():
    positional, _ = arguments_for(MetaSSLLabeledLoss(3), 0)
    label = (positional[2].argmax(dim=1, keepdim=True) + 1) % 3
    plain = ReleasedLabeledLoss(3, ramped=True)
    monitored, alone = MonitoredLoss(plain, MetaSSLLabeledLoss(3)), MetaSSLLabeledLoss(3)
    value = monitored(*positional, label=label, ramp=0.25)
    alone(*positional, label=label)
    assert torch.equal(monitored.regions, alone.regions)
    expected = 0.25 * MetaSSLLabeledLoss(3)(*positional, label=label)
    torch.testing.assert_close(value, expected)
