# SPDX-License-Identifier: Apache-2.0
"""Thresholds: Eq. 9-10 in loops, absent classes, order of update and use, evaluation mode, masks, several ranks."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import metassl_monai
from metassl_monai import losses
from metassl_monai.losses import (
    AdaptiveThreshold,
    FixedThreshold,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    Quadripartition,
    Region,
    RegionAccuracyWeights,
)

few = settings(max_examples=25, deadline=None, derandomize=True)


def slow_update(
    old: list[float], keep: float, confidence: Tensor, label: Tensor, mask: Tensor | None, absent: str = "hold"
) -> list[float]:
    """Eq. 9-10, voxel by voxel; a class without voxels keeps its threshold, or loses it as in the released scripts."""
    inside = [True] * label.numel() if mask is None else [bool(m) for m in mask.flatten()]
    new = []
    for c, threshold in enumerate(old):
        members = [
            k
            for k, y, m in zip(confidence.flatten().tolist(), label.flatten().tolist(), inside, strict=True)
            if y == c and m
        ]
        if absent == "decay":
            new.append(keep * threshold + (1 - keep) * sum(members) / (len(members) + 1))
        else:
            new.append(keep * threshold + (1 - keep) * sum(members) / len(members) if members else threshold)
    return new


def statistics(seed: int, classes: int, voxels: tuple[int, ...] = (2, 1, 4, 3)) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    confidence = torch.rand(voxels, generator=random)
    label = torch.randint(0, classes, voxels, generator=random)
    return confidence, label, torch.rand(voxels, generator=random) < 0.6


@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 8),
    keep=st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]),
    initial=st.sampled_from([0.0, 0.5, 0.9]),
    masked=st.booleans(),
    absent=st.sampled_from(["hold", "decay"]),
    cap=st.sampled_from([1.0, 0.9, 0.4]),
)
@few
def test_three_updates_equal_the_loop(seed, classes, keep, initial, masked, absent, cap):
    threshold = AdaptiveThreshold(classes, keep=keep, initial=initial, absent=absent, cap=cap)
    expected = [initial] * classes
    for step in range(3):
        confidence, label, mask = statistics(seed + step, classes)
        mask = mask if masked else None
        threshold.update(confidence, label, mask)
        used = threshold(label)
        expected = slow_update(expected, keep, confidence, label, mask, absent)
        assert threshold.values.tolist() == pytest.approx(expected, abs=1e-6)
        assert used.shape == label.shape
        capped = [min(expected[c], cap) for c in label.flatten().tolist()]
        assert used.flatten().tolist() == pytest.approx(capped, abs=1e-6)


def test_absent_class_is_held():
    threshold = AdaptiveThreshold(3, keep=0.5, initial=0.9)
    for _ in range(10):
        threshold.update(torch.tensor([0.6, 0.8]), torch.tensor([2, 2]))
    assert threshold.values[:2].tolist() == pytest.approx([0.9, 0.9], abs=1e-7)
    assert threshold.values[2].item() == pytest.approx(0.7 + 0.2 * 0.5**10, abs=1e-6)


def test_absent_class_decays_where_asked():
    threshold = AdaptiveThreshold(3, keep=0.5, initial=0.9, absent="decay")
    for _ in range(10):
        threshold.update(torch.tensor([0.6, 0.8]), torch.tensor([2, 2]))
    assert threshold.values[:2].tolist() == pytest.approx([0.9 * 0.5**10] * 2, abs=1e-9)
    assert threshold.values[2].item() == pytest.approx(1.4 / 3 + (0.9 - 1.4 / 3) * 0.5**10, abs=1e-6)


def test_a_cap_limits_what_is_used_and_not_what_is_kept():
    threshold = AdaptiveThreshold(2, keep=0.5, initial=0.95, cap=0.9)
    label = torch.tensor([0, 1])
    threshold.update(torch.tensor([1.0, 0.5]), label)
    assert threshold(label).tolist() == pytest.approx([0.9, 0.725])
    assert threshold.values.tolist() == pytest.approx([0.975, 0.725])
    threshold.eval().update(torch.tensor([1.0, 0.5]), label)
    assert threshold(label).tolist() == pytest.approx([0.9, 0.725])


def test_empty_mask_moves_nothing():
    threshold = AdaptiveThreshold(3, keep=0.0)
    confidence, label, mask = statistics(0, 3)
    threshold.update(confidence, label, torch.zeros_like(mask))
    assert threshold.values.tolist() == [0.5] * 3


@pytest.mark.parametrize("cast", [bool, torch.uint8, torch.float32, torch.int64])
def test_any_non_zero_mask_value_counts_once(cast):
    confidence, label, mask = statistics(3, 3)
    expected, actual = AdaptiveThreshold(3, keep=0.0), AdaptiveThreshold(3, keep=0.0)
    expected.update(confidence, label, mask)
    actual.update(confidence, label, mask if cast is bool else 200 * mask.to(cast))
    torch.testing.assert_close(actual.values, expected.values)


def test_mask_equals_leaving_voxels_out():
    confidence, label, mask = statistics(1, 3)
    masked, cropped = AdaptiveThreshold(3), AdaptiveThreshold(3)
    masked.update(confidence, label, mask)
    cropped.update(confidence[mask], label[mask])
    torch.testing.assert_close(masked.values, cropped.values)


def test_first_partition_uses_the_moved_threshold():
    """Confidence .6 is above the initial .5 and not above the moved .6: update first, then partition."""
    reference = torch.tensor([0.6, 0.4], dtype=torch.float64).log().reshape(1, 2, 1).expand(1, 2, 4)
    reference = torch.cat([reference, torch.tensor([0.9, 0.1], dtype=torch.float64).log().reshape(1, 2, 1)], dim=2)
    other = torch.zeros(1, 1, 5, dtype=torch.long)
    partition = Quadripartition(2, AdaptiveThreshold(2, keep=0.0))
    assert partition(reference, other).flatten().tolist() == [Region.US] * 4 + [Region.UC]  # moved to .66
    frozen = Quadripartition(2, AdaptiveThreshold(2, keep=0.0)).eval()
    assert frozen(reference, other).flatten().tolist() == [Region.UC] * 5  # stays at .5


@pytest.mark.parametrize("build", [MetaSSLUnlabeledLoss, MetaSSLLabeledLoss])
def test_losses_update_in_training_and_freeze_in_eval(build):
    random = torch.Generator().manual_seed(0)
    input, reference = (torch.randn(2, 3, 4, 4, generator=random) for _ in range(2))
    target = torch.randint(0, 3, (2, 1, 4, 4), generator=random)
    arguments = (input, target, reference) if build is MetaSSLLabeledLoss else (input, reference)
    loss = build(3)
    confidence, label = reference.softmax(dim=1).max(dim=1, keepdim=True)
    loss(*arguments)
    expected = slow_update([0.5] * 3, 0.99, confidence, label, None)
    assert loss.partition.threshold.values.tolist() == pytest.approx(expected, abs=1e-6)
    loss.eval()
    before = loss.partition.threshold.values.clone()
    first, second = loss(*arguments), loss(*arguments)
    assert torch.equal(first, second)
    assert torch.equal(loss.partition.threshold.values, before)
    loss.train()
    loss(*arguments)
    assert not torch.equal(loss.partition.threshold.values, before)


def test_evaluation_reads_the_values():
    threshold = AdaptiveThreshold(3).eval()
    threshold.values.copy_(torch.tensor([0.1, 0.2, 0.3]))
    confidence, _, _ = statistics(0, 3, (4,))
    threshold.update(confidence, torch.tensor([2, 0, 1, 2]))
    assert threshold(torch.tensor([2, 0, 1, 2])).tolist() == pytest.approx([0.3, 0.1, 0.2, 0.3])
    assert threshold.values.tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_state_dict_round_trip():
    trained, fresh = MetaSSLUnlabeledLoss(3), MetaSSLUnlabeledLoss(3)
    random = torch.Generator().manual_seed(0)
    input, reference = (torch.randn(2, 3, 4, 4, generator=random) for _ in range(2))
    for _ in range(3):
        trained(input, reference)
    state = copy.deepcopy(trained.state_dict())
    assert list(state) == ["partition.threshold.values"]
    fresh.load_state_dict(state)
    assert torch.equal(fresh.partition.threshold.values, trained.partition.threshold.values)
    assert torch.equal(fresh(input, reference), trained(input, reference))
    assert torch.equal(fresh.partition.threshold.values, trained.partition.threshold.values)
    assert not torch.equal(fresh.partition.threshold.values, state["partition.threshold.values"])


def test_no_parameters_and_no_gradient():
    threshold = AdaptiveThreshold(2)
    confidence = torch.tensor([0.9, 0.7], requires_grad=True)
    threshold.update(confidence, torch.tensor([0, 1]))
    assert not threshold(torch.tensor([0, 1])).requires_grad
    assert list(threshold.parameters()) == []
    assert not threshold.values.requires_grad


def test_each_loss_has_its_own_threshold():
    first, second = MetaSSLUnlabeledLoss(3), MetaSSLUnlabeledLoss(3)
    random = torch.Generator().manual_seed(0)
    first(torch.randn(1, 3, 4, 4, generator=random), torch.randn(1, 3, 4, 4, generator=random))
    assert second.partition.threshold.values.tolist() == [0.5] * 3


def test_a_shared_threshold_moves_with_either_loss():
    shared = AdaptiveThreshold(3)
    labeled, unlabeled = MetaSSLLabeledLoss(3, threshold=shared), MetaSSLUnlabeledLoss(3, threshold=shared)
    random = torch.Generator().manual_seed(0)
    input, reference = (torch.randn(1, 3, 4, 4, generator=random) for _ in range(2))
    unlabeled(input, reference)
    once = shared.values.clone()
    labeled(input, torch.zeros(1, 1, 4, 4), reference)
    assert not torch.equal(shared.values, once)


def test_fixed_threshold_never_moves():
    threshold = FixedThreshold(0.9)
    confidence, label, mask = statistics(0, 3)
    for _ in range(2):
        threshold.update(confidence, label, mask)
        used = threshold(label)
        assert torch.broadcast_to(used, label.shape).unique().tolist() == pytest.approx([0.9])
    assert threshold.state_dict() == {}


@pytest.mark.parametrize(("build", "name"), [(FixedThreshold, "value"), (lambda v: AdaptiveThreshold(2, v), "keep")])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_values_outside_zero_to_one_are_named(build, name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        build(value)


@pytest.mark.parametrize("name", ["initial", "cap"])
def test_other_numbers_outside_zero_to_one_are_named(name):
    with pytest.raises(ValueError, match=rf"{name}=1\.5"):
        AdaptiveThreshold(2, **{name: 1.5})


def test_an_unknown_rule_for_absent_classes_is_named_with_the_choices():
    with pytest.raises(ValueError, match=r"absent='zero' is unknown.*hold.*decay"):
        AdaptiveThreshold(2, absent="zero")


SHARED = {
    "adaptive": ("AdaptiveThreshold", {"num_classes": 4, "keep": 0.6}),
    "decaying": ("AdaptiveThreshold", {"num_classes": 4, "keep": 0.5, "initial": 0.9, "absent": "decay", "cap": 0.9}),
    "flexmatch": ("FlexMatchThreshold", {"num_classes": 4, "value": 0.7, "keep": 0.6}),
    "freematch": ("FreeMatchThreshold", {"num_classes": 4, "keep": 0.6}),
}


def judged(confidence: Tensor) -> dict[str, Tensor]:
    """Some regions, and some voxels that are right."""
    return {"regions": (4 * confidence).long(), "right": confidence % 0.1 < 0.05}


def test_ranks_agree_with_one_process_on_the_whole_batch(tmp_path):
    """Ranks differ in voxels, classes and masks, so a mean of means would be wrong; class 3 is on neither."""
    shards = [statistics(0, 2, (1, 1, 3, 3)), statistics(1, 3, (1, 1, 6, 7))]
    shards[0][1].fill_(0)  # classes 1 and 2 are on rank 1 only
    random = torch.Generator().manual_seed(2)
    references = [torch.randn(1, 4, *label.shape[2:], generator=random) for _, label, _ in shards]
    script = Path(__file__).with_name("gloo_rank.py")
    package_root = Path(metassl_monai.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package_root), "OMP_NUM_THREADS": "1"}
    processes = []
    for rank, (shard, reference) in enumerate(zip(shards, references, strict=True)):
        content = dict(zip(("confidence", "label", "mask"), shard, strict=True))
        content |= {"reference": reference, "thresholds": SHARED, **judged(shard[0])}
        torch.save(content, tmp_path / f"shard{rank}.pt")
        arguments = [f"{tmp_path.as_uri()}/rendezvous", tmp_path / f"shard{rank}.pt", tmp_path / f"states{rank}.pt"]
        command = [sys.executable, str(script), str(rank), "2", *map(str, arguments)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    first, second = (torch.load(tmp_path / f"states{rank}.pt", weights_only=True) for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)

    whole = [torch.cat([part.flatten(2) for part in parts], dim=2) for parts in zip(*shards, strict=True)]
    reference = torch.cat([part.flatten(2) for part in references], dim=2)
    for name, (kind, options) in SHARED.items():
        threshold = getattr(losses, kind)(**options)
        untouched = threshold.values.clone()
        for _ in range(2):
            threshold.update(*whole, reference)
        torch.testing.assert_close(first[name], dict(threshold.state_dict()))
        assert (threshold.values[:3] != untouched[:3]).all()
    accuracies = RegionAccuracyWeights(4, keep=0.6)
    for _ in range(2):
        accuracies.update(**judged(whole[0]), label=whole[1], mask=whole[2])
    torch.testing.assert_close(first["accuracies"], dict(accuracies.state_dict()))
    assert first["adaptive"]["values"][3] == 0.5
    assert first["decaying"]["values"][3].item() == pytest.approx(0.9 / 4)
    assert first["flexmatch"]["values"][3] == 0
