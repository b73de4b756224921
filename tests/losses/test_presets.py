# SPDX-License-Identifier: Apache-2.0
"""Presets: the three build, hold the values that they stand for, and share nothing."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.losses import (
    PRESETS,
    AdaptiveThreshold,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    Region,
    metassl_losses,
)

UC, US, DC, DS = Region
AT_03 = [1, 0.973361, 0.805735, 0.482391]
AT_06 = [1, 0.805735, 0.177639, 0.002932]


@pytest.mark.parametrize(
    ("preset", "labeled_weights", "unlabeled_weights", "keep"),
    [
        ("paper", AT_03, AT_06, 0.99),
        ("paper_IVA", AT_06, AT_03, 0.99),
        ("paper_literal_ema", AT_03, AT_06, 0.01),
    ],
)
def test_values(preset, labeled_weights, unlabeled_weights, keep):
    labeled, unlabeled = metassl_losses(num_classes=3, preset=preset)
    assert type(labeled) is MetaSSLLabeledLoss
    assert type(unlabeled) is MetaSSLUnlabeledLoss
    assert [labeled.region_weights()[r].item() for r in (UC, US, DS, DC)] == pytest.approx(labeled_weights, abs=6e-7)
    assert [unlabeled.region_weights()[r].item() for r in (UC, US, DC, DS)] == pytest.approx(
        unlabeled_weights, abs=6e-7
    )
    for loss in (labeled, unlabeled):
        threshold = loss.partition.threshold
        assert isinstance(threshold, AdaptiveThreshold)
        assert threshold.keep == keep
        assert threshold.values.tolist() == [0.5] * 3
        assert loss.scale == 1
        assert loss.normalization == "total"
        assert loss.partition.confidence == "probability"
        assert loss.partition.mode == "quad"
        assert loss.partition.num_classes == 3


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_trains(preset):
    labeled, unlabeled = metassl_losses(2, preset)
    random = torch.Generator().manual_seed(0)
    input, reference = (torch.randn(1, 2, 4, 4, generator=random) for _ in range(2))
    input.requires_grad_()
    (labeled(input, torch.zeros(1, 1, 4, 4), reference) + unlabeled(input, reference)).backward()
    assert input.grad.abs().sum() > 0


def test_the_paper_is_the_default_and_what_the_classes_default_to():
    random = torch.Generator().manual_seed(0)
    input, reference = (torch.randn(2, 3, 4, 4, generator=random) for _ in range(2))
    target = torch.randint(0, 3, (2, 1, 4, 4), generator=random)
    for labeled, unlabeled in (metassl_losses(3), metassl_losses(3, "paper")):
        assert torch.equal(labeled(input, target, reference), MetaSSLLabeledLoss(3)(input, target, reference))
        assert torch.equal(unlabeled(input, reference), MetaSSLUnlabeledLoss(3)(input, reference))


def test_thresholds_are_shared_neither_within_a_pair_nor_between_calls():
    losses = [*metassl_losses(2), *metassl_losses(2)]
    assert len({id(loss.partition.threshold) for loss in losses}) == 4


def test_building_leaves_the_table_alone():
    before = repr(PRESETS)
    for preset in PRESETS:
        metassl_losses(2, preset)
    assert repr(PRESETS) == before


def test_unknown_preset_is_named_with_the_choices():
    with pytest.raises(ValueError, match="preset='best' is unknown") as error:
        metassl_losses(2, "best")
    assert all(preset in str(error.value) for preset in ("paper", "paper_IVA", "paper_literal_ema"))
