# SPDX-License-Identifier: Apache-2.0
"""The quadripartition: an exact cover, strict confidence, one bit at a time, and errors that name the argument."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metassl_monai.losses import AdaptiveThreshold, FixedThreshold, Quadripartition, Region

few = settings(max_examples=25, deadline=None, derandomize=True)
shapes = st.sampled_from([(5,), (4, 5), (3, 4, 2)])


def logits_of(rows: list[list[float]]) -> Tensor:
    """Logits (1, C, N) whose softmax is ``rows``: one row of class probabilities a voxel."""
    return torch.tensor(rows).log().T[None]


def index(*values: int) -> Tensor:
    return torch.tensor(values)[None, None]


# argmax 0, 0, 1, 1 and confidence .9, .6, .8, .55: confident, suspicious, confident, suspicious at 0.7
FOUR = logits_of([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])


def test_region_values_are_two_bits():
    assert [(r.name, int(r)) for r in Region] == [("UC", 0), ("US", 1), ("DC", 2), ("DS", 3)]


@given(seed=st.integers(0, 2**31), classes=st.integers(2, 8), spatial=shapes, value=st.sampled_from([0.3, 0.5, 0.8]))
@few
def test_regions_follow_their_definition_and_cover_each_voxel_once(seed, classes, spatial, value):
    random = torch.Generator().manual_seed(seed)
    reference = 2 * torch.randn(2, classes, *spatial, generator=random)
    other = torch.randint(0, classes, (2, 1, *spatial), generator=random)
    regions = Quadripartition(classes, FixedThreshold(value))(reference, other)
    assert regions.dtype == torch.uint8
    assert regions.shape == other.shape
    confidence, label = reference.softmax(dim=1).max(dim=1, keepdim=True)
    confident, unanimous = confidence > value, label == other
    members = {
        Region.UC: unanimous & confident,
        Region.US: unanimous & ~confident,
        Region.DC: ~unanimous & confident,
        Region.DS: ~unanimous & ~confident,
    }
    assert all(torch.equal(regions == region, inside) for region, inside in members.items())
    assert sum((regions == region).sum() for region in Region) == other.numel()


def test_all_four_regions_on_a_line():
    partition = Quadripartition(2, FixedThreshold(0.7))
    assert partition(FOUR, index(0, 0, 1, 1)).flatten().tolist() == [Region.UC, Region.US, Region.UC, Region.US]
    assert partition(FOUR, index(1, 1, 0, 0)).flatten().tolist() == [Region.DC, Region.DS, Region.DC, Region.DS]


@pytest.mark.parametrize(("classes", "value"), [(2, 0.5), (4, 0.25), (8, 0.125)])
def test_confidence_equal_to_the_threshold_is_suspicious(classes, value):
    reference = torch.zeros(1, classes, 3)  # softmax is exactly 1 / classes
    regions = Quadripartition(classes, FixedThreshold(value))(reference, torch.zeros(1, 1, 3, dtype=torch.long))
    assert (regions == Region.US).all()
    regions = Quadripartition(classes, FixedThreshold(value - 1e-3))(reference, torch.zeros(1, 1, 3, dtype=torch.long))
    assert (regions == Region.UC).all()


def test_the_threshold_is_that_of_the_reference_label():
    threshold = AdaptiveThreshold(2).eval()
    threshold.values.copy_(torch.tensor([0.95, 0.5]))
    regions = Quadripartition(2, threshold)(FOUR, index(1, 1, 0, 0))
    assert regions.flatten().tolist() == [Region.DS, Region.DS, Region.DC, Region.DC]


def test_only_the_reference_decides_confidence():
    partition = Quadripartition(2, FixedThreshold(0.7))
    suspicious = [partition(FOUR, other) & 1 for other in (index(0, 0, 1, 1), index(1, 0, 0, 1))]
    assert torch.equal(*suspicious)


def test_label_replaces_argmax_and_its_probability_is_the_confidence():
    partition = Quadripartition(2, FixedThreshold(0.5))
    regions = partition(FOUR, index(0, 1, 0, 0), label=index(1, 1, 0, 0))
    # probability at the label: .1, .4, .2, .45
    assert regions.flatten().tolist() == [Region.DS, Region.US, Region.US, Region.US]
    regions = Quadripartition(2, FixedThreshold(0.3))(FOUR, index(0, 1, 0, 0), label=index(1, 1, 0, 0))
    assert regions.flatten().tolist() == [Region.DS, Region.UC, Region.US, Region.UC]


def test_label_decides_which_threshold_applies():
    threshold = AdaptiveThreshold(2).eval()
    threshold.values.copy_(torch.tensor([0.1, 0.9]))
    regions = Quadripartition(2, threshold)(FOUR, index(0, 0, 0, 0), label=index(0, 0, 0, 1))
    assert regions.flatten().tolist() == [Region.UC, Region.UC, Region.UC, Region.DS]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_label_and_other_may_have_any_dtype(dtype):
    partition = Quadripartition(2, FixedThreshold(0.5))
    other, label = index(0, 1, 0, 0), index(1, 1, 0, 0)
    expected = partition(FOUR, other, label)
    assert torch.equal(partition(FOUR, other.to(dtype), label), expected)
    assert torch.equal(partition(FOUR, other, label.to(dtype)), expected)


def test_mask_limits_the_statistics_and_not_the_map():
    partition = Quadripartition(2, AdaptiveThreshold(2, keep=0.0, initial=0.5))
    regions = partition(FOUR, index(0, 0, 1, 1), mask=index(0, 1, 1, 0))
    torch.testing.assert_close(partition.threshold.values, torch.tensor([0.6, 0.8]))
    assert regions.shape == (1, 1, 4)
    assert regions[0, 0, 0] == Region.UC  # 0.9 > 0.6: a region outside the mask as well
    assert regions[0, 0, 3] == Region.US  # 0.55 < 0.8


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("quad", [Region.UC, Region.DS, Region.DC, Region.US]),
        ("confidence", [Region.UC, Region.US, Region.UC, Region.US]),
        ("consistency", [Region.UC, Region.DC, Region.DC, Region.UC]),
    ],
)
def test_modes_keep_one_bit(mode, expected):
    regions = Quadripartition(2, FixedThreshold(0.7), mode=mode)(FOUR, index(0, 1, 0, 1))
    assert regions.flatten().tolist() == expected
    assert regions.dtype == torch.uint8


def test_nothing_passes_gradient():
    reference = FOUR.clone().requires_grad_()
    regions = Quadripartition(2, AdaptiveThreshold(2))(reference, index(0, 0, 1, 1))
    assert not regions.requires_grad
    assert reference.grad is None


def test_half_precision_reference_is_partitioned_in_float32():
    reference = (4 * torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))).half()
    other = torch.zeros(2, 1, 6, 6, dtype=torch.long)
    partition = Quadripartition(3, FixedThreshold(0.9))
    assert torch.equal(partition(reference, other), partition(reference.float(), other))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confidence": "entropy"}, ["confidence='entropy'", "probability", "mad", "variance", "std"]),
        ({"mode": "octo"}, ["mode='octo'", "quad", "confidence", "consistency"]),
    ],
)
def test_unknown_options_are_named_with_the_choices(options, words):
    with pytest.raises(ValueError, match="unknown") as error:
        Quadripartition(2, FixedThreshold(0.5), **options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("other", {"other": torch.zeros(2, 1, 4, 5)}),
        ("other", {"other": torch.zeros(2, 4, 4)}),
        ("label", {"label": torch.zeros(2, 3, 4, 4)}),
        ("mask", {"mask": torch.zeros(1, 1, 4, 4)}),
    ],
)
def test_shape_errors_name_the_argument_and_both_shapes(name, changed):
    arguments = {"reference": torch.zeros(2, 3, 4, 4), "other": torch.zeros(2, 1, 4, 4), **changed}
    with pytest.raises(ValueError, match="has shape") as error:
        Quadripartition(3, FixedThreshold(0.5))(**arguments)
    message = str(error.value)
    assert message.startswith(name)
    assert str(tuple(changed[name].shape)) in message
    assert "(2, 1, 4, 4)" in message


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (2, 1, 4, 4), (3, 3)])
def test_wrong_channel_count_names_shape_and_expectation(shape):
    with pytest.raises(ValueError, match="num_classes") as error:
        Quadripartition(3, FixedThreshold(0.5))(torch.zeros(shape), torch.zeros(2, 1, 4, 4))
    assert str(shape) in str(error.value)
    assert "(batch, 3, *spatial)" in str(error.value)
