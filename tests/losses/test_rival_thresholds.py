# SPDX-License-Identifier: Apache-2.0
"""FlexMatch's and FreeMatch's thresholds in loops over voxels, and when they move."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metassl_monai.losses import FlexMatchThreshold, FreeMatchThreshold, Quadripartition, Region

few = settings(max_examples=25, deadline=None, derandomize=True)
KINDS = [FlexMatchThreshold, FreeMatchThreshold]
both_kinds = pytest.mark.parametrize("kind", KINDS)


def draw(seed: int, classes: int, masked: bool, absent: bool) -> dict[str, Any]:
    """What a partition passes to a threshold, in float64; the last class may be absent."""
    random = torch.Generator().manual_seed(seed)
    reference = 3 * torch.randn(2, classes, 4, 3, generator=random, dtype=torch.float64)
    reference[:, -1] -= 40 * absent
    confidence, label = reference.softmax(dim=1).max(dim=1, keepdim=True)
    mask = torch.rand(label.shape, generator=random) < 0.6
    return {"confidence": confidence, "label": label, "mask": mask if masked else None, "reference": reference}


def voxels(batch: dict[str, Any]) -> list[tuple[float, int, list[float]]]:
    """Confidence, label and probabilities of every voxel inside the mask."""
    rows = batch["reference"].movedim(1, -1).flatten(0, -2).tolist()
    exponentials = [[math.exp(v) for v in row] for row in rows]
    probabilities = [[v / sum(row) for v in row] for row in exponentials]
    inside = [True] * len(rows) if batch["mask"] is None else batch["mask"].flatten().tolist()
    confidence, label = batch["confidence"].flatten().tolist(), batch["label"].flatten().tolist()
    return [(k, y, p) for k, y, p, m in zip(confidence, label, probabilities, inside, strict=True) if m]


class SlowFlexMatch:
    def __init__(self, classes: int, value: float, keep: float) -> None:
        self.value, self.keep = value, keep
        self.sure, self.unsure = [0.0] * classes, 0.0

    def update(self, batch: dict[str, Any]) -> list[float]:
        seen = voxels(batch)
        for c, old in enumerate(self.sure):
            count = sum(1 for k, y, _ in seen if y == c and k > self.value)
            self.sure[c] = self.keep * old + (1 - self.keep) * count
        below = sum(1 for k, _, _ in seen if k <= self.value)
        self.unsure = self.keep * self.unsure + (1 - self.keep) * below
        most = max(*self.sure, self.unsure)
        beta = [count / most if most > 0 else 0.0 for count in self.sure]
        return [self.value * b / (2 - b) for b in beta]


class SlowFreeMatch:
    def __init__(self, classes: int, keep: float) -> None:
        self.keep = keep
        self.overall, self.shares = 1 / classes, [1 / classes] * classes

    def update(self, batch: dict[str, Any]) -> list[float]:
        seen = voxels(batch)
        if seen:
            self.overall = self.keep * self.overall + (1 - self.keep) * sum(k for k, _, _ in seen) / len(seen)
            for c, old in enumerate(self.shares):
                self.shares[c] = self.keep * old + (1 - self.keep) * sum(p[c] for _, _, p in seen) / len(seen)
        return [self.overall * share / max(self.shares) for share in self.shares]


@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 6),
    value=st.sampled_from([0.95, 0.8, 0.5]),
    keep=st.sampled_from([0.0, 0.5, 0.99]),
    masked=st.booleans(),
    absent=st.booleans(),
)
@few
def test_flexmatch_equals_the_loop(seed, classes, value, keep, masked, absent):
    threshold, slow = FlexMatchThreshold(classes, value=value, keep=keep), SlowFlexMatch(classes, value, keep)
    for step in range(4):
        batch = draw(seed + step, classes, masked, absent and step > 1)
        threshold.update(**batch)
        used = threshold(batch["label"])
        expected = slow.update(batch)
        assert threshold.values.tolist() == pytest.approx(expected, abs=1e-6)
        assert used.flatten().tolist() == pytest.approx([expected[y] for y in batch["label"].flatten()], abs=1e-6)


@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 6),
    keep=st.sampled_from([0.0, 0.5, 0.999]),
    masked=st.booleans(),
    absent=st.booleans(),
)
@few
def test_freematch_equals_the_loop(seed, classes, keep, masked, absent):
    threshold, slow = FreeMatchThreshold(classes, keep=keep), SlowFreeMatch(classes, keep)
    for step in range(4):
        batch = draw(seed + step, classes, masked, absent and step > 1)
        threshold.update(**batch)
        used = threshold(batch["label"])
        expected = slow.update(batch)
        assert threshold.values.tolist() == pytest.approx(expected, abs=1e-6)
        assert used.flatten().tolist() == pytest.approx([expected[y] for y in batch["label"].flatten()], abs=1e-6)


def test_numbers_of_flexmatch_by_hand():
    """Four sure of class 0, two of class 1, three unsure: b = 1, 1/2, 0."""
    threshold = FlexMatchThreshold(3, value=0.9)
    threshold.update(torch.tensor([0.95] * 6 + [0.6] * 3), torch.tensor([0, 0, 0, 0, 1, 1, 0, 1, 2]))
    assert threshold.values.tolist() == pytest.approx([0.9, 0.9 / 3, 0.0], abs=1e-6)


def test_flexmatch_warms_up_while_most_voxels_are_unsure():
    """One sure of class 0, three unsure: b_0 = 1/3, so that the class is not yet at the full threshold."""
    threshold = FlexMatchThreshold(2, value=0.9)
    threshold.update(torch.tensor([0.95, 0.6, 0.7, 0.8]), torch.tensor([0, 0, 1, 1]))
    assert threshold.values.tolist() == pytest.approx([0.9 * (1 / 3) / (5 / 3), 0.0], abs=1e-6)


@pytest.mark.parametrize("confidence", [0.6, 0.75])
def test_flexmatch_when_no_voxel_is_above_its_value(confidence):
    """A confidence of exactly the value does not count as sure, either."""
    threshold = FlexMatchThreshold(3, value=0.75)
    label = torch.tensor([0, 1, 2, 0, 1, 2])
    threshold.update(torch.full((6,), confidence), label)
    used = threshold(label)
    assert threshold.values.tolist() == [0, 0, 0]
    assert used.tolist() == [0] * 6
    assert threshold.counts.tolist() == pytest.approx([0, 0, 0, 0.06], abs=1e-7)


def test_numbers_of_freematch_by_hand():
    threshold = FreeMatchThreshold(2, keep=0.0)
    reference = torch.tensor([[0.9, 0.7, 0.2], [0.1, 0.3, 0.8]]).log()[None]
    confidence, label = reference.softmax(dim=1).max(dim=1, keepdim=True)
    threshold.update(confidence, label, None, reference)
    assert threshold.overall.item() == pytest.approx(0.8, abs=1e-6)
    assert threshold.shares.tolist() == pytest.approx([0.6, 0.4], abs=1e-6)
    assert threshold.values.tolist() == pytest.approx([0.8, 0.8 * 2 / 3], abs=1e-6)


def test_where_they_start():
    assert FlexMatchThreshold(4).values.tolist() == [0] * 4
    assert (FlexMatchThreshold(4).value, FlexMatchThreshold(4).keep) == (0.95, 0.99)
    fresh = FreeMatchThreshold(4)
    assert (fresh.overall.item(), fresh.shares.tolist(), fresh.keep) == (0.25, [0.25] * 4, 0.999)
    assert fresh.values.tolist() == [0.25] * 4


@both_kinds
def test_mask_equals_leaving_voxels_out(kind):
    batch = draw(0, 3, masked=True, absent=False)
    masked, cropped = kind(3, keep=0.5), kind(3, keep=0.5)
    masked.update(**batch)
    inside = batch["mask"].flatten()
    rows = batch["reference"].movedim(1, -1).flatten(0, -2)[inside].T[None]
    cropped.update(batch["confidence"].flatten()[inside], batch["label"].flatten()[inside], None, rows)
    torch.testing.assert_close(dict(masked.state_dict()), dict(cropped.state_dict()))


@both_kinds
def test_an_empty_mask_leaves_the_thresholds(kind):
    threshold = kind(3, keep=0.5)
    batch = draw(0, 3, masked=False, absent=False)
    threshold.update(**batch)
    before = threshold.values.clone()
    threshold.update(**{**batch, "mask": torch.zeros_like(batch["label"])})
    torch.testing.assert_close(threshold.values, before)


@both_kinds
def test_evaluation_moves_nothing_and_reads_the_values(kind):
    threshold = kind(3, keep=0.5)
    threshold.update(**draw(0, 3, masked=False, absent=False))
    before = copy.deepcopy(threshold.state_dict())
    batch = draw(1, 3, masked=True, absent=False)
    threshold.eval().update(**{**batch, "reference": None})
    used = threshold(batch["label"])
    torch.testing.assert_close(dict(threshold.state_dict()), dict(before), rtol=0, atol=0)
    torch.testing.assert_close(used, before["values"][batch["label"]])
    threshold.train().update(**batch)
    assert not torch.equal(threshold.values, before["values"])


@both_kinds
def test_state_dict_round_trip(kind):
    trained, fresh = kind(3), kind(3)
    for step in range(3):
        trained.update(**draw(step, 3, masked=False, absent=False))
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    batch = draw(9, 3, masked=True, absent=False)
    for threshold in (fresh, trained):
        threshold.update(**batch)
    assert torch.equal(fresh(batch["label"]), trained(batch["label"]))
    torch.testing.assert_close(dict(fresh.state_dict()), dict(trained.state_dict()), rtol=0, atol=0)


@both_kinds
def test_no_parameters_and_no_gradient(kind):
    threshold = kind(3)
    batch = draw(0, 3, masked=False, absent=False)
    arguments = {**batch, "confidence": batch["confidence"].requires_grad_()}
    arguments["reference"] = batch["reference"].requires_grad_()
    threshold.update(**arguments)
    assert not threshold(batch["label"]).requires_grad
    assert list(threshold.parameters()) == []


@both_kinds
def test_a_partition_moves_the_threshold_first_and_then_uses_it(kind):
    threshold = kind(3, keep=0.2)
    batch = draw(4, 3, masked=False, absent=False)
    other = torch.zeros_like(batch["label"])
    regions = Quadripartition(3, threshold)(batch["reference"], other)
    moved = threshold.values.tolist()
    assert moved != kind(3).values.tolist()
    for code, k, y in zip(regions.flatten(), batch["confidence"].flatten(), batch["label"].flatten(), strict=True):
        suspicious = k.item() <= moved[int(y)]
        assert int(code) == (Region.US if suspicious else Region.UC) + 2 * (int(y) != 0)


def rare_foreground() -> Tensor:
    """A hundred voxels, all sure: ninety-eight of background, two of foreground."""
    logits = torch.zeros(1, 2, 100)
    logits[:, 0, :98] = 5.0
    logits[:, 1, 98:] = 5.0
    return logits


@both_kinds
def test_a_rare_class_has_a_threshold_near_zero(kind):
    threshold = kind(2, keep=0.0)
    Quadripartition(2, threshold)(rare_foreground(), torch.zeros(1, 1, 100))
    assert threshold.values[0] > 0.9
    assert threshold.values[1] < 0.05


def test_freematch_without_logits_is_told_where_they_come_from():
    with pytest.raises(ValueError, match=r"reference's logits.*Quadripartition"):
        FreeMatchThreshold(2).update(torch.tensor([0.9]), torch.tensor([0]))


@pytest.mark.parametrize(
    ("kind", "name"), [(FlexMatchThreshold, "value"), (FlexMatchThreshold, "keep"), (FreeMatchThreshold, "keep")]
)
@pytest.mark.parametrize("number", [-0.1, 1.1])
def test_numbers_outside_zero_to_one_are_named(kind, name, number):
    with pytest.raises(ValueError, match=f"{name}={number}"):
        kind(2, **{name: number})


@both_kinds
def test_a_partition_of_another_number_of_classes_is_refused(kind):
    with pytest.raises(ValueError, match=r"threshold has 3 classes.*4"):
        Quadripartition(4, kind(3))
