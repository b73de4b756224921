# SPDX-License-Identifier: Apache-2.0
"""Bidirectional copy-paste: who lies in the box, at which place and of which size, for any two batch sizes."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, set_rnd
from monai.utils import set_determinism

from metassl_monai.transforms import (
    BidirectionalCopyPaste,
    BidirectionalCopyPasteD,
    BidirectionalCopyPasted,
    BidirectionalCopyPasteDict,
)

few = settings(max_examples=40, deadline=None, derandomize=True)
spatials = st.sampled_from([(7,), (12, 9), (6, 8, 5), (5, 4, 1)])
fractions = st.sampled_from([0.25, 0.5, 2 / 3, 1.0])


@pytest.fixture
def determinism():
    yield set_determinism
    set_determinism(None)


def batches(labeled, unlabeled, spatial, channels=1):
    """Labeled samples hold 1, 2, ... and unlabeled ones -1, -2, ..."""

    def numbered(number, sign):
        values = sign * torch.arange(1.0, number + 1)
        return values.view(-1, *[1] * (len(spatial) + 1)).expand(number, channels, *spatial)

    return numbered(labeled, 1), numbered(unlabeled, -1)


def mixed_slowly(labeled, unlabeled, mask):
    result = unlabeled.clone()
    for sample, channel, *place in np.ndindex(*unlabeled.shape):
        if mask[(sample, 0, *place)]:
            result[(sample, channel, *place)] = labeled[(sample % len(labeled), channel, *place)]
    return result


def test_aliases():
    assert BidirectionalCopyPasteD is BidirectionalCopyPasteDict is BidirectionalCopyPasted


@given(
    labeled=st.integers(1, 4),
    unlabeled=st.integers(1, 5),
    spatial=spatials,
    fraction=fractions,
    seed=st.integers(0, 2**31),
)
@few
def test_mixing_equals_its_definition(labeled, unlabeled, spatial, fraction, seed):
    paste = BidirectionalCopyPaste(fraction).set_random_state(seed=seed)
    one, two = batches(labeled, unlabeled, spatial, channels=2)
    mixed = paste(one, two)
    assert torch.equal(mixed, mixed_slowly(one, two, paste.mask))
    assert torch.equal(mixed > 0, paste.mask.expand_as(mixed))


@given(number=st.integers(1, 6), spatial=spatials, fraction=fractions, seed=st.integers(0, 2**31))
@few
def test_the_mask_is_one_box_inward_and_its_complement_outward(number, spatial, fraction, seed):
    paste = BidirectionalCopyPaste(fraction).set_random_state(seed=seed)
    paste.randomize(spatial, number)
    assert paste.mask.shape == (number, 1, *spatial)
    assert paste.mask.dtype == torch.bool
    box = paste.mask[0]
    inward = (number + 1) // 2
    assert all(torch.equal(mask, box) for mask in paste.mask[:inward])
    assert all(torch.equal(mask, ~box) for mask in paste.mask[inward:])
    sides = [round(fraction * size) for size in spatial]
    assert box.sum() == np.prod(sides)
    if box.any():
        places = box[0].nonzero()
        assert (places.max(0).values - places.min(0).values + 1).tolist() == sides


def test_every_place_inside_the_image_is_equally_likely():
    paste = BidirectionalCopyPaste(0.5).set_random_state(seed=0)
    counts = Counter()
    for _ in range(4500):
        paste.randomize((4, 10), 1)
        counts[tuple(paste.mask[0, 0].nonzero()[0].tolist())] += 1
    assert set(counts) == {(row, column) for row in range(3) for column in range(6)}
    assert all(abs(count - 250) < 80 for count in counts.values())


def test_the_whole_image_as_a_box():
    labeled, unlabeled = batches(1, 2, (4, 4))
    mixed = BidirectionalCopyPaste(1.0)(labeled, unlabeled)
    assert torch.equal(mixed[0], labeled[0])
    assert torch.equal(mixed[1], unlabeled[1])


@pytest.mark.parametrize(("labeled", "unlabeled"), [(1, 1), (3, 1), (1, 5), (2, 3), (4, 4)])
def test_labeled_samples_are_used_in_turn(labeled, unlabeled):
    one, two = batches(labeled, unlabeled, (6, 6))
    mixed = BidirectionalCopyPaste()(one, two)
    for number, sample in enumerate(mixed):
        assert sample.unique().tolist() == [-number - 1, number % labeled + 1]


def test_one_draw_serves_every_array():
    paste = BidirectionalCopyPaste().set_random_state(seed=0)
    images = batches(2, 3, (9, 6))
    mixed, mask = paste(*images), paste.mask
    logits = paste(*batches(2, 3, (9, 6), channels=4), randomize=False)
    assert paste.mask is mask
    assert torch.equal(logits, mixed.expand_as(logits))
    labels = paste(*(array.long() for array in images), randomize=False)
    assert labels.dtype == torch.long
    assert torch.equal(labels, mixed.long())


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (torch.uint8, torch.uint8, torch.uint8),
        (torch.float32, torch.int64, torch.float32),
        (torch.uint8, torch.int64, torch.int64),
        (torch.float16, torch.float32, torch.float32),
    ],
)
def test_dtypes_promote(one, two, expected):
    labeled, unlabeled = torch.ones(2, 1, 4, 4, dtype=one), torch.zeros(3, 1, 4, 4, dtype=two)
    paste = BidirectionalCopyPaste()
    mixed = paste(labeled, unlabeled)
    assert mixed.dtype == expected
    assert torch.equal(mixed.bool(), paste.mask)


def test_metadata_is_dropped():
    labeled, unlabeled = (MetaTensor(torch.rand(2, 1, 4, 4)) for _ in range(2))
    assert type(BidirectionalCopyPaste()(labeled, unlabeled)) is torch.Tensor


def test_gradient_flows_to_both():
    labeled, unlabeled = (torch.zeros(2, 1, 6, 6, requires_grad=True) for _ in range(2))
    paste = BidirectionalCopyPaste()
    paste(labeled, unlabeled).sum().backward()
    assert torch.equal(labeled.grad.bool(), paste.mask)
    assert torch.equal(unlabeled.grad.bool(), ~paste.mask)


def test_inputs_stay_as_they_are():
    labeled, unlabeled = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    BidirectionalCopyPaste()(labeled, unlabeled)
    assert labeled.all()
    assert not unlabeled.any()


def test_the_dictionary_form_shares_a_draw():
    labeled, unlabeled = batches(2, 3, (8, 8))
    data = {
        "labeled": {"image": labeled, "label": labeled.long(), "spare": 1},
        "unlabeled": {"image": unlabeled, "label": unlabeled.long()},
    }
    transform = BidirectionalCopyPasted(mask_key="from_labeled").set_random_state(seed=3)
    mixed = transform(data)
    assert set(mixed) == {"image", "label", "from_labeled"}
    assert mixed["label"].dtype == torch.long
    assert torch.equal(mixed["image"].long(), mixed["label"])
    assert torch.equal(mixed["from_labeled"], mixed["image"] > 0)
    assert torch.equal(mixed["image"], BidirectionalCopyPaste().set_random_state(seed=3)(labeled, unlabeled))
    assert torch.equal(transform(data, randomize=False)["image"], mixed["image"])
    transform.set_random_state(seed=3).randomize((8, 8), 3)
    assert torch.equal(transform(data, randomize=False)["image"], mixed["image"])
    assert set(data["labeled"]) == {"image", "label", "spare"}


def test_missing_keys():
    labeled, unlabeled = batches(2, 2, (4, 4))
    data = {"labeled": {"image": labeled, "label": labeled}, "unlabeled": {"image": unlabeled}}
    assert set(BidirectionalCopyPasted(allow_missing_keys=True)(data)) == {"image", "mask"}
    assert BidirectionalCopyPasted("label", allow_missing_keys=True)(data) == {}
    with pytest.raises(KeyError, match="label"):
        BidirectionalCopyPasted()(data)


def test_seeds_repeat(determinism):
    arrays, results = batches(2, 2, (40, 40)), []
    for _ in range(2):
        determinism(5)
        results.append(BidirectionalCopyPaste()(*arrays))
    assert torch.equal(*results)
    paste = BidirectionalCopyPaste().set_random_state(seed=6)
    first, second = paste(*arrays), paste(*arrays)
    assert not torch.equal(first, second)
    assert torch.equal(paste.set_random_state(seed=6)(*arrays), first)


def test_set_rnd_reaches_an_attribute_of_a_module():
    module, arrays, results = torch.nn.Module(), batches(2, 2, (40, 40)), []
    module.paste = BidirectionalCopyPasted("image")
    data = dict(zip(("labeled", "unlabeled"), ({"image": array} for array in arrays), strict=True))
    for seed in (1, 1, 2):
        set_rnd(module, seed=seed)
        results.append(module.paste(data)["image"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_deepcopy_repeats_the_original():
    arrays = batches(2, 2, (40, 40))
    paste = BidirectionalCopyPaste().set_random_state(seed=1)
    paste(*arrays)
    twin = copy.deepcopy(paste)
    assert torch.equal(twin(*arrays), paste(*arrays))
    assert twin.mask is not paste.mask


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01])
def test_a_bad_fraction_is_named(fraction):
    with pytest.raises(ValueError, match=f"box_fraction={fraction} "):
        BidirectionalCopyPaste(fraction)


@pytest.mark.parametrize(
    ("labeled", "unlabeled"),
    [
        ((2, 1, 8, 8), (2, 1, 8, 9)),
        ((2, 1, 8, 8), (2, 1, 8, 8, 8)),
        ((2, 1, 8, 8), (2, 4, 8, 8)),
        ((0, 1, 8, 8), (2, 1, 8, 8)),
        ((2, 8), (2, 8)),
    ],
)
def test_shapes_that_do_not_fit_are_named(labeled, unlabeled):
    with pytest.raises(ValueError, match="labeled and unlabeled have shapes") as error:
        BidirectionalCopyPaste()(torch.zeros(labeled), torch.zeros(unlabeled))
    assert str(labeled) in str(error.value)
    assert str(unlabeled) in str(error.value)


def test_repeating_a_draw_for_another_shape_is_an_error():
    paste = BidirectionalCopyPaste()
    with pytest.raises(ValueError, match="there is none yet"):
        paste(*batches(2, 2, (8, 8)), randomize=False)
    paste(*batches(2, 2, (8, 8)))
    with pytest.raises(ValueError, match="last draw is for") as error:
        paste(*batches(2, 3, (8, 8)), randomize=False)
    assert "(3, 1, 8, 8)" in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_does_not_wait_for_the_device():
    labeled, unlabeled = torch.ones(2, 1, 32, 32, device="cuda"), torch.zeros(5, 1, 32, 32, device="cuda")
    paste = BidirectionalCopyPaste()
    paste(labeled, unlabeled)
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed = paste(labeled, unlabeled)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert mixed.is_cuda
    assert paste.mask.is_cuda
