# SPDX-License-Identifier: Apache-2.0
"""Presets: they build and hold the values that they stand for; every ablation is one argument (test_released.py)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from metassl_monai.losses import (
    PRESETS,
    AdaptiveThreshold,
    FixedThreshold,
    FlexMatchThreshold,
    FreeMatchThreshold,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    Region,
    ReleasedLabeledLoss,
    ReleasedUnlabeledLoss,
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
    assert all(preset in str(error.value) for preset in PRESETS)


# ---- ablations ------------------------------------------------------------------------------------------------------


def arguments(seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Input, target, reference."""
    random = torch.Generator().manual_seed(seed)
    input, reference = (2 * torch.randn(2, classes, 5, 4, generator=random) for _ in range(2))
    return input, torch.randint(0, classes, (2, 1, 5, 4), generator=random), reference


def values_of(
    pair: tuple[MetaSSLLabeledLoss, MetaSSLUnlabeledLoss], steps: int = 3
) -> list[tuple[Tensor, Tensor, list[float]]]:
    """Losses and thresholds over some steps."""
    labeled, unlabeled = pair
    values = []
    for step in range(steps):
        input, target, reference = arguments(step)
        step_values = labeled(input, target, reference), unlabeled(input, reference)
        values.append((*step_values, labeled.partition.threshold.values.tolist()))
    return values


ABLATIONS: list[dict[str, Any]] = [
    *({"confidence": name} for name in ("mad", "variance", "std")),
    *({"mode": name} for name in ("confidence", "consistency")),
    *({"phi": name} for name in ("linear", "reciprocal", "cosine")),
    {"beta": 1.0},
    {"beta": 2.0},
    {"delta": 0.5},
    {"scale": 3.0},
    {"normalization": "region"},
    {"order": (UC, DC, US, DS)},
    {"weights": (1.0, 0.3, 0.2, 0.1)},
    {"normalization": "region", "unanimous": "split"},
    {"mode": "consistency", "weights": (1.0, 0.0, 0.4, 0.0), "confidence": "std"},
]


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_an_argument_for_both_losses_equals_the_classes_with_it(options):
    defaults = {"labeled": {"delta": 0.3}, "unlabeled": {"delta": 0.6}}
    paper, released = (MetaSSLLabeledLoss, MetaSSLUnlabeledLoss), (ReleasedLabeledLoss, ReleasedUnlabeledLoss)
    labeled, unlabeled = released if "unanimous" in options else paper
    expected = (
        labeled(3, **{**defaults["labeled"], **options}),
        unlabeled(3, **{**defaults["unlabeled"], **options}),
    )
    assert values_of(metassl_losses(3, **options)) == values_of(expected)
    assert values_of(metassl_losses(3, **options)) != values_of(metassl_losses(3))


def test_arguments_for_one_loss_leave_the_other_alone_and_win_over_those_for_both():
    plain = values_of(metassl_losses(3))
    changed = values_of(metassl_losses(3, labeled={"delta": 0.5, "dice": False}))
    assert all(new[0] != old[0] and new[1] == old[1] for new, old in zip(changed, plain, strict=True))
    changed = values_of(metassl_losses(3, unlabeled={"delta": 0.5}))
    assert all(new[0] == old[0] and new[1] != old[1] for new, old in zip(changed, plain, strict=True))
    labeled, unlabeled = metassl_losses(3, "ref_cct2d", labeled={"scale": 7.0}, unlabeled={"phi": "linear"}, scale=2.0)
    assert (labeled.scale, unlabeled.scale) == (7.0, 2.0)
    assert unlabeled.region_weights().tolist() == pytest.approx([1, 0.7, 0.1, 0.4])  # the order is still the preset's
    assert labeled.region_weights().tolist() == pytest.approx([1, 0.973361, 0.482391, 0.805735], abs=6e-7)


@pytest.mark.parametrize("phi", ["linear", "reciprocal", "cosine", "gaussian"])
def test_the_table_of_weight_functions_through_one_argument(phi):
    """Table VI: both losses at 0.6."""
    expected = {
        "linear": [1, 0.7, 0.4, 0.1],
        "reciprocal": [1, 0.625, 0.455, 0.357],
        "cosine": [1, 0.913, 0.681, 0.386],
        "gaussian": [1, 0.698, 0.237, 0.039],
    }[phi]
    labeled, unlabeled = metassl_losses(4, phi=phi, beta=2.0, delta=0.6)
    assert [labeled.region_weights()[r].item() for r in (UC, US, DS, DC)] == pytest.approx(expected, abs=6e-4)
    assert [unlabeled.region_weights()[r].item() for r in (UC, US, DC, DS)] == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("number", [0.85, 0.9, 0.95, 0, 1])
def test_a_number_is_a_fixed_threshold(preset, number):
    labeled, unlabeled = metassl_losses(3, preset, threshold=number)
    for loss in (labeled, unlabeled):
        assert type(loss.partition.threshold) is FixedThreshold
        assert loss.partition.threshold.values.tolist() == pytest.approx([number])
    assert labeled.partition.threshold is not unlabeled.partition.threshold


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize(
    ("name", "kind"),
    [("adaptive", AdaptiveThreshold), ("flexmatch", FlexMatchThreshold), ("freematch", FreeMatchThreshold)],
)
def test_a_name_is_a_threshold(preset, name, kind):
    pair = metassl_losses(3, preset, threshold=name)
    for loss in pair:
        assert type(loss.partition.threshold) is kind
        assert loss.partition.threshold.num_classes == 3
    assert pair[0].partition.threshold is not pair[1].partition.threshold
    starts = [loss.partition.threshold.values.clone() for loss in pair]
    values_of(pair)
    assert all(not torch.equal(loss.partition.threshold.values, a) for loss, a in zip(pair, starts, strict=True))


@pytest.mark.parametrize("threshold", ["adaptive", "flexmatch", "freematch", 0.9])
def test_the_threshold_decides_the_regions(threshold):
    _, unlabeled = metassl_losses(3, threshold=threshold)
    if not isinstance(threshold, float):
        unlabeled.partition.threshold.keep = 0.2  # far enough from the start to matter
    input, _, reference = arguments()
    unlabeled(input, reference)
    confidence, label = reference.softmax(dim=1).max(dim=1, keepdim=True)
    used = torch.broadcast_to(unlabeled.partition.threshold.values, (3,))[label]
    assert torch.equal((unlabeled.regions & 1).bool(), confidence <= used)


@pytest.mark.parametrize("copied", [False, True], ids=["as-built", "copied-together"])
@pytest.mark.parametrize("threshold", ["adaptive", "flexmatch", "freematch"])
def test_shared_thresholds_are_one_state(threshold, copied):
    pair = metassl_losses(3, threshold=threshold, share_thresholds=True)
    original = pair[0].partition.threshold
    if copied:
        pair = copy.deepcopy(pair)
        assert pair[0].partition.threshold is not original
    labeled, unlabeled = pair
    shared = labeled.partition.threshold
    assert unlabeled.partition.threshold is shared
    untouched = copy.deepcopy(original.state_dict()) if copied else None

    alone = copy.deepcopy(shared)  # the same two updates by hand, in the order of the calls
    for loss, seed in ((labeled, 0), (unlabeled, 1)):
        input, target, reference = arguments(seed)
        loss(*((input, target, reference) if loss is labeled else (input, reference)))
        confidence, label = reference.softmax(dim=1).max(dim=1, keepdim=True)
        alone.update(confidence, label, None, reference)
        torch.testing.assert_close(dict(shared.state_dict()), dict(alone.state_dict()))
    if copied:
        torch.testing.assert_close(dict(original.state_dict()), dict(untouched), rtol=0, atol=0)


def test_shared_thresholds_stay_one_in_a_module_and_through_its_checkpoint():
    module = torch.nn.ModuleList(metassl_losses(3, share_thresholds=True))
    values_of(tuple(module))
    state = copy.deepcopy(module.state_dict())
    other = copy.deepcopy(torch.nn.ModuleList(metassl_losses(3, share_thresholds=True)))
    other.load_state_dict(state)
    assert other[0].partition.threshold is other[1].partition.threshold
    assert torch.equal(other[0].partition.threshold.values, module[1].partition.threshold.values)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": "best"}, ["threshold='best'", "adaptive", "flexmatch", "freematch", "number"]),
        ({"threshold": "0.9"}, ["threshold='0.9'", "number"]),
        ({"threshold": 1.5}, ["1.5", "between 0 and 1"]),
        ({"confidence": "tcp"}, ["confidence='tcp'", "probability", "mad", "variance", "std"]),
        ({"mode": "half"}, ["mode='half'", "quad", "confidence", "consistency"]),
        ({"phi": "cubic"}, ["phi='cubic'", "gaussian", "linear", "reciprocal", "cosine"]),
        ({"normalization": "mean"}, ["normalization='mean'", "total", "region"]),
        ({"labeled": {"judge": "partner"}}, ["judge='partner'", "reference", "self"]),
        ({"unlabeled": {"phi": "cubic"}}, ["phi='cubic'", "gaussian"]),
        ({"preset": "ref_3d", "unanimous": "both"}, ["unanimous='both'", "joint", "split", "released"]),
        ({"preset": "ref_3d", "normalization": "total"}, ["unanimous='split'", "normalization='region'"]),
    ],
)
def test_unknown_choices_are_named(options, words):
    with pytest.raises(ValueError, match=r"unknown|between|needs") as error:
        metassl_losses(3, **options)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
