# SPDX-License-Identifier: Apache-2.0
"""CutMix: exact mixing, a fresh box for each sample of any batch, the true area, and one draw for every array."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor, set_rnd
from monai.transforms import Compose, RandFlipd, Resized
from monai.utils import set_determinism

from metassl_monai.transforms import RandCutMix, RandCutMixD, RandCutMixd, RandCutMixDict

few = settings(max_examples=40, deadline=None, derandomize=True)
spatials = st.sampled_from([(7,), (12, 9), (6, 8, 5), (5, 4, 1)])


@pytest.fixture
def determinism():
    yield set_determinism
    set_determinism(None)


def numbered(number, spatial, channels=1):
    """A batch whose every value is the index of its sample."""
    return torch.arange(float(number)).view(-1, *[1] * (len(spatial) + 1)).expand(number, channels, *spatial)


def mixed_slowly(batch, mask, partner):
    result = batch.clone()
    for sample, channel, *place in np.ndindex(*batch.shape):
        if mask[(sample, 0, *place)]:
            result[(sample, channel, *place)] = batch[(int(partner[sample]), channel, *place)]
    return result


def bounds(mask):
    """First and one past the last index inside the box along each axis, for a non-empty mask of one sample."""
    return [(int(axis.min()), int(axis.max()) + 1) for axis in mask[0].nonzero(as_tuple=True)]


def test_aliases():
    assert RandCutMixD is RandCutMixDict is RandCutMixd


@given(number=st.integers(1, 5), spatial=spatials, seed=st.integers(0, 2**31), alpha=st.sampled_from([0.2, 1.0, 4.0]))
@few
def test_mixing_equals_its_definition(number, spatial, seed, alpha):
    cutmix = RandCutMix(alpha=alpha).set_random_state(seed=seed)
    batch = torch.randn(number, 2, *spatial, generator=torch.Generator().manual_seed(seed))
    before = batch.clone()
    result = cutmix(batch)
    assert torch.equal(batch, before)
    assert torch.equal(result, mixed_slowly(batch, cutmix.mask, cutmix.partner))
    assert cutmix.mask.shape == (number, 1, *spatial)
    assert cutmix.mask.dtype == torch.bool


@given(number=st.integers(1, 9), spatial=spatials, seed=st.integers(0, 2**31), prob=st.sampled_from([0.0, 0.5, 1.0]))
@few
def test_masks_are_boxes_and_areas_are_true(number, spatial, seed, prob):
    cutmix = RandCutMix(prob=prob).set_random_state(seed=seed)
    cutmix.randomize(torch.zeros(number, 1, *spatial))
    assert cutmix.area.shape == (number,)
    torch.testing.assert_close(cutmix.area, cutmix.mask.float().flatten(1).mean(1))
    for mask in cutmix.mask:
        if mask.any():
            box = [slice(*ends) for ends in bounds(mask)]
            assert mask[0][tuple(box)].all()
            assert mask.sum() == np.prod([side.stop - side.start for side in box])


@given(number=st.integers(1, 12), seed=st.integers(0, 2**31))
@few
def test_partners_are_a_permutation_without_fixed_points(number, seed):
    cutmix = RandCutMix().set_random_state(seed=seed)
    cutmix.randomize(torch.zeros(number, 1, 4, 4))
    assert sorted(cutmix.partner.tolist()) == list(range(number))
    assert number == 1 or not (cutmix.partner == torch.arange(number)).any()


def test_every_other_sample_is_a_partner_equally_often():
    cutmix = RandCutMix().set_random_state(seed=0)
    counts = torch.zeros(4, 4)
    for _ in range(3000):
        cutmix.randomize(torch.zeros(4, 1, 2, 2))
        counts[torch.arange(4), cutmix.partner] += 1
    assert counts.diagonal().sum() == 0
    assert ((counts[~torch.eye(4, dtype=torch.bool)] - 1000).abs() < 150).all()


def test_a_single_sample_is_mixed_with_itself():
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(RandCutMix()(image), image)


@pytest.mark.parametrize("spatial", [(64, 64), (24, 32, 20)])
def test_a_box_that_is_not_cut_has_the_side_of_its_lambda(spatial):
    # Beta(2e6, 2e6) is 1/2 to three digits
    cutmix = RandCutMix(alpha=2e6).set_random_state(seed=1)
    cutmix.randomize(torch.zeros(200, 1, *spatial))
    sides = [round(size * 0.5 ** (1 / len(spatial))) for size in spatial]
    uncut = []
    for mask in cutmix.mask:
        for (low, high), side, size in zip(bounds(mask), sides, spatial, strict=True):
            uncut.append(low > 0 and high < size)
            assert high - low <= side + 1
            assert not uncut[-1] or abs(high - low - side) <= 1
    assert 0 < sum(uncut) < len(uncut)


def test_lambda_is_uniform_where_alpha_is_one():
    # without cutting, the mean of 1 - lambda is 1/2; the box is cut off, so the mean area is smaller
    cutmix = RandCutMix().set_random_state(seed=0)
    cutmix.randomize(torch.zeros(20000, 1, 100))
    sides = torch.tensor([100 * float(area) for area in cutmix.area])
    assert sides.min() == 0
    assert sides.max() > 90
    # E[area] in one dimension: integral over the side s and center c of the part inside = 1/2 - E[s^2]/4
    assert abs(float(cutmix.area.mean()) - (0.5 - 1 / 12)) < 0.01


def test_centers_are_fresh_and_uniform():
    size = 20
    cutmix = RandCutMix(alpha=2e6).set_random_state(seed=2)
    cutmix.randomize(torch.zeros(8000, 1, size, size))
    side = round(size * 0.5**0.5)
    covered = cutmix.mask.float().mean(dim=(0, 1))
    expected = torch.tensor(
        [sum(0 <= place - center + side // 2 < side for center in range(size)) for place in range(size)]
    )
    torch.testing.assert_close(covered, torch.outer(expected, expected) / size**2, atol=0.03, rtol=0)
    corners = {tuple(low for low, _ in bounds(mask)) for mask in cutmix.mask[:200]}
    assert len(corners) > 30


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_prob_is_that_of_each_sample(prob):
    cutmix = RandCutMix(prob=prob, alpha=1000).set_random_state(seed=0)
    cutmix.randomize(torch.zeros(4000, 1, 16, 16))
    share = float((cutmix.area > 0).float().mean())
    assert abs(share - prob) < 0.03
    assert prob not in (0.0, 1.0) or share == prob


def test_any_batch_size_and_shape_follows_another():
    cutmix = RandCutMix().set_random_state(seed=0)
    for number, spatial in [(3, (8, 8)), (1, (8, 8)), (5, (4, 6, 5)), (2, (9,))]:
        batch = numbered(number, spatial, channels=2)
        assert torch.equal(cutmix(batch), torch.where(cutmix.mask, batch[cutmix.partner], batch))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float16, torch.float64])
def test_dtype_is_kept(dtype):
    cutmix = RandCutMix()
    image = cutmix(torch.rand(3, 1, 8, 8))
    label = torch.randint(0, 2, (3, 1, 8, 8)).to(dtype)
    mixed = cutmix(label, randomize=False)
    assert image.dtype == torch.float32
    assert mixed.dtype == dtype
    assert torch.equal(mixed, torch.where(cutmix.mask, label[cutmix.partner], label))


def test_one_draw_serves_arrays_of_any_channels():
    cutmix = RandCutMix().set_random_state(seed=0)
    one, four = numbered(4, (9, 9)), numbered(4, (9, 9), channels=4)
    mixed = cutmix(one)
    mask = cutmix.mask
    assert torch.equal(cutmix(four, randomize=False), mixed.expand_as(four))
    assert cutmix.mask is mask


def test_gradient_flows_to_own_and_partner():
    logits = torch.zeros(3, 2, 8, 8, requires_grad=True)
    RandCutMix()(logits).sum().backward()
    assert logits.grad.sum() == logits.numel()


def test_numpy_in_numpy_out():
    cutmix = RandCutMix()
    image = np.random.default_rng(0).random((3, 1, 8, 8))
    mixed = cutmix(image)
    assert isinstance(mixed, np.ndarray)
    assert np.array_equal(mixed, np.where(cutmix.mask, image[cutmix.partner], image))


def test_metadata_of_a_batch_is_kept():
    pipeline = Compose([Resized("image", (10, 12)), RandFlipd("image", prob=1.0)])
    data = [
        {"image": MetaTensor(torch.rand(1, 8, 8), affine=torch.diag(torch.tensor([i, 1.0, 1, 1])))} for i in (1, 2, 3)
    ]
    batch = next(iter(DataLoader(Dataset(data, pipeline), batch_size=3)))
    mixed = RandCutMixd("image")(batch)["image"]
    assert isinstance(mixed, MetaTensor)
    assert torch.equal(mixed.affine, batch["image"].affine)
    assert [len(operations) for operations in mixed.applied_operations] == [2, 2, 2]


def test_partial_last_batch_of_a_loader():
    data = [{"image": torch.full((1, 8, 8), float(i)), "label": torch.full((1, 8, 8), i)} for i in range(5)]
    cutmix = RandCutMixd(["image", "label"])
    batches = [cutmix(batch) for batch in DataLoader(Dataset(data), batch_size=3)]
    assert [len(batch["cutmix_mask"]) for batch in batches] == [3, 2]
    assert all(torch.equal(batch["image"].long(), batch["label"]) for batch in batches)


def test_the_dictionary_form_shares_a_draw_and_leaves_the_rest():
    batch = {"image": numbered(4, (9, 9), 3), "label": numbered(4, (9, 9)).long(), "name": ["a", "b", "c", "d"]}
    transform = RandCutMixd(["image", "label"], mask_key="box").set_random_state(seed=4)
    mixed = transform(batch)
    assert set(batch) == {"image", "label", "name"}
    assert set(mixed) == {*batch, "box"}
    assert mixed["name"] is batch["name"]
    assert mixed["label"].dtype == torch.long
    assert torch.equal(mixed["image"][:, :1], mixed["label"].float())
    assert torch.equal(mixed["box"], transform.cutmix.mask)
    repeated = transform({"image": numbered(4, (9, 9)), "label": batch["label"]}, randomize=False)
    assert torch.equal(repeated["label"], mixed["label"])


def test_dictionary_and_array_form_draw_alike():
    image = numbered(5, (9, 9))
    transform = RandCutMixd("image").set_random_state(seed=9)
    assert torch.equal(transform({"image": image})["image"], RandCutMix().set_random_state(seed=9)(image))
    transform.set_random_state(seed=9).randomize(image)
    assert torch.equal(
        transform({"image": image}, randomize=False)["image"], RandCutMix().set_random_state(seed=9)(image)
    )


def test_missing_keys():
    batch = {"label": numbered(3, (8, 8))}
    mixed = RandCutMixd(["image", "label"], allow_missing_keys=True)(batch)
    assert set(mixed) == {"label", "cutmix_mask"}
    assert RandCutMixd("image", allow_missing_keys=True)(batch) == batch
    with pytest.raises(KeyError, match="image"):
        RandCutMixd(["image", "label"])(batch)


def test_set_determinism_before_construction_repeats(determinism):
    image, results = numbered(4, (16, 16)), []
    for _ in range(2):
        determinism(5)
        results += [RandCutMix()(image), RandCutMixd("image")({"image": image})["image"]]
    assert all(torch.equal(result, results[0]) for result in results)


def test_set_rnd_reaches_an_attribute_of_a_module():
    module = torch.nn.Module()
    module.cutmix = RandCutMix()
    image, results = numbered(4, (16, 16)), []
    for seed in (1, 1, 2):
        set_rnd(module, seed=seed)
        results.append(module.cutmix(image))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_deepcopy_repeats_the_original():
    image = numbered(4, (16, 16))
    cutmix = RandCutMixd("image").set_random_state(seed=1)
    cutmix({"image": image})
    twin = copy.deepcopy(cutmix)
    assert torch.equal(twin({"image": image})["image"], cutmix({"image": image})["image"])
    assert twin.cutmix.mask is not cutmix.cutmix.mask


@pytest.mark.parametrize(("options", "message"), [({"prob": 1.5}, "prob=1.5"), ({"alpha": 0}, "alpha=0")])
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        RandCutMix(**options)


def test_errors_name_the_shapes():
    cutmix = RandCutMix()
    with pytest.raises(ValueError, match=r"\(3, 8\), expected \(batch, channels, \*spatial\)"):
        cutmix(torch.zeros(3, 8))
    with pytest.raises(ValueError, match="there is none yet"):
        cutmix(torch.zeros(3, 1, 8, 8), randomize=False)
    cutmix(torch.zeros(3, 1, 8, 8))
    for shape in [(2, 1, 8, 8), (3, 1, 8, 9), (3, 1, 8, 8, 8)]:
        with pytest.raises(ValueError, match="last draw is for") as error:
            cutmix(torch.zeros(shape), randomize=False)
        assert str(shape) in str(error.value)
        assert "(3, 'channels', 8, 8)" in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_does_not_wait_for_the_device():
    image = torch.rand(6, 1, 64, 64, device="cuda")
    cutmix = RandCutMix()
    cutmix(image)
    torch.cuda.set_sync_debug_mode("error")
    try:
        cutmix(image)
        cutmix(image, randomize=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert cutmix.mask.is_cuda
    assert cutmix.area.is_cuda
