# SPDX-License-Identifier: Apache-2.0
"""Two views: one geometry, two intensities, metadata that can still be inverted, and a seed that reaches everything."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, set_rnd
from monai.transforms import (
    Compose,
    Flip,
    Invertd,
    RandFlipd,
    RandGaussianNoise,
    RandScaleIntensity,
    Resized,
    ScaleIntensity,
    SpatialPad,
)
from monai.utils import set_determinism

from metassl_monai.transforms import WeakStrongViews, WeakStrongViewsD, WeakStrongViewsd, WeakStrongViewsDict

SHAPES = [(1, 24, 20), (3, 16, 16), (1, 12, 10, 6), (2, 9, 8, 1)]
DOUBLE = ScaleIntensity(minv=None, maxv=None, factor=1.0)


@pytest.fixture
def determinism():
    yield set_determinism
    set_determinism(None)


def image_of(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def metadata_image(shape=(1, 12, 10)):
    image = MetaTensor(image_of(shape), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    image.meta["filename_or_obj"] = "case.nii.gz"
    return image


def test_aliases():
    assert WeakStrongViewsD is WeakStrongViewsDict is WeakStrongViewsd


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_the_default_changes_intensities_alone(shape, seed):
    image = image_of(shape, seed)
    before = image.clone()
    weak, strong = WeakStrongViews().set_random_state(seed=seed)(image)
    assert torch.equal(image, before)
    assert torch.equal(weak, image)
    assert strong.shape == weak.shape
    assert strong.dtype == torch.float32
    assert strong.isfinite().all()
    assert not torch.equal(strong, weak)


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 16, 16, 16)])
def test_the_default_suits_unit_range_and_z_scores_alike(shape):
    image = image_of(shape)
    for scaled in (image, (image - image.mean()) / image.std()):
        for seed in range(20):
            weak, strong = WeakStrongViews().set_random_state(seed=seed)(scaled)
            assert (strong - weak).std() < 1.5 * weak.std()
            assert (strong - weak).mean().abs() < 1.5 * weak.std()


def test_the_default_keeps_most_structure_in_place():
    # a bright square stays where it is: no view is flipped, shifted or erased
    image = torch.zeros(1, 40, 40)
    image[:, 4:16, 4:16] = 1
    inside = [
        strong[:, 4:16, 4:16].mean() - strong[:, 24:36, 24:36].mean()
        for _, strong in (WeakStrongViews().set_random_state(seed=seed)(image) for seed in range(60))
    ]
    assert sum(difference > 0.1 for difference in inside) > 50


def test_a_constant_image_stays_finite():
    for seed in range(10):
        _, strong = WeakStrongViews().set_random_state(seed=seed)(torch.zeros(1, 8, 8))
        assert strong.isfinite().all()


def test_strong_follows_weak():
    add_one = WeakStrongViews(strong=DOUBLE, weak=lambda image: image + 1)
    weak, strong = add_one(torch.ones(1, 3, 3))
    assert torch.equal(weak, torch.full((1, 3, 3), 2.0))
    assert torch.equal(strong, torch.full((1, 3, 3), 4.0))


def test_transforms_that_work_in_place_leave_image_and_weak_view():
    image = torch.ones(1, 3, 3)
    weak, strong = WeakStrongViews(strong=lambda view: view.mul_(5), weak=lambda view: view.add_(1))(image)
    assert image.unique().tolist() == [1]
    assert weak.unique().tolist() == [2]
    assert strong.unique().tolist() == [10]


def test_numpy_images_become_tensors():
    weak, strong = WeakStrongViews(strong=DOUBLE)(np.ones((1, 3, 3), dtype=np.float32))
    assert isinstance(weak, torch.Tensor)
    assert torch.equal(strong.as_tensor(), 2 * weak.as_tensor())


@pytest.mark.parametrize("name", ["weak", "strong"])
@pytest.mark.parametrize("geometric", [SpatialPad((20, 20)), Flip(0)])
def test_a_geometric_transform_is_refused(name, geometric):
    options = {"strong": DOUBLE, name: geometric}
    with pytest.raises(ValueError, match=f"^{name} changed the geometry"):
        WeakStrongViews(**options)(metadata_image())


def test_seed_repeats_and_another_seed_differs():
    image = image_of((1, 16, 16))
    views = WeakStrongViews(weak=RandGaussianNoise(prob=1.0))
    first = views.set_random_state(seed=3)(image)
    again = views.set_random_state(seed=3)(image)
    other = views.set_random_state(seed=4)(image)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(views(image)[1], other[1])


def test_a_state_seeds_as_well():
    image = image_of((1, 8, 8))
    views = WeakStrongViews()
    first, again = (views.set_random_state(state=np.random.RandomState(5))(image)[1] for _ in range(2))
    assert torch.equal(first, again)


def test_set_determinism_seeds_through_compose(determinism):
    item = {"image": image_of((1, 16, 16))}
    results = []
    for _ in range(2):
        determinism(11)
        pipeline = Compose([WeakStrongViewsd("image", strong=RandScaleIntensity(0.5, prob=1.0))])
        results.append(pipeline(item)["image_strong"])
    assert torch.equal(*results)


def test_set_rnd_reaches_an_attribute():
    class Holder:
        def __init__(self):
            self.views = WeakStrongViews()

    holder, image = Holder(), image_of((1, 8, 8))
    set_rnd(holder, seed=2)
    first = holder.views(image)[1]
    set_rnd(holder, seed=2)
    assert torch.equal(holder.views(image)[1], first)


def test_deepcopy_repeats_the_original():
    image = image_of((1, 8, 8))
    transform = WeakStrongViewsd("image").set_random_state(seed=1)
    twin = copy.deepcopy(transform)
    assert torch.equal(transform({"image": image})["image_strong"], twin({"image": image})["image_strong"])


def test_randomize_draws_nothing():
    transform, image = WeakStrongViewsd("image"), image_of((1, 8, 8))
    first = transform.set_random_state(seed=1)({"image": image})["image_strong"]
    transform.set_random_state(seed=1).randomize()
    transform.views.randomize()
    assert torch.equal(transform({"image": image})["image_strong"], first)


def test_the_dictionary_form_adds_one_key_an_image_and_leaves_the_rest():
    item = {"image": image_of((1, 8, 8)), "t2": image_of((1, 8, 8), 1), "label": torch.ones(1, 8, 8), "name": "a"}
    result = WeakStrongViewsd(["image", "t2"], strong=DOUBLE, strong_postfix="hard")(item)
    assert set(result) == {*item, "image_hard", "t2_hard"}
    assert set(item) == {"image", "t2", "label", "name"}
    assert result["label"] is item["label"]
    for key in ("image", "t2"):
        assert torch.equal(result[key].as_tensor(), item[key])
        assert torch.equal(result[f"{key}_hard"].as_tensor(), 2 * item[key])


def test_missing_keys():
    item = {"image": image_of((1, 8, 8))}
    assert set(WeakStrongViewsd(["image", "t2"], allow_missing_keys=True)(item)) == {"image", "image_strong"}
    with pytest.raises(KeyError, match="t2"):
        WeakStrongViewsd(["image", "t2"])(item)


def test_metadata_is_carried_and_not_shared():
    item = Compose([RandFlipd("image", prob=1.0), WeakStrongViewsd("image")])({"image": metadata_image()})
    weak, strong = item["image"], item["image_strong"]
    assert isinstance(strong, MetaTensor)
    assert torch.equal(strong.affine, weak.affine)
    assert strong.meta["filename_or_obj"] == "case.nii.gz"
    assert [op["class"] for op in strong.applied_operations] == ["RandFlipd"]
    strong.applied_operations.clear()
    assert len(weak.applied_operations) == 1


@pytest.mark.parametrize("weak", [None, DOUBLE])
@pytest.mark.parametrize(("shape", "size"), [((1, 12, 10), (24, 30)), ((1, 8, 6, 4), (16, 12, 8))])
def test_earlier_spatial_transforms_are_still_inverted(shape, size, weak):
    spatial = [Resized("image", size, mode="nearest"), RandFlipd("image", prob=1.0, spatial_axis=0)]
    pipeline = Compose([*spatial, WeakStrongViewsd("image", weak=weak)])
    image = metadata_image(shape)
    item = pipeline({"image": image})
    item["prediction"] = item["image"].clone()
    item["strong_prediction"] = item["image_strong"].clone()
    inverse = Invertd(
        ["prediction", "strong_prediction"], pipeline, ["image", "image"], nearest_interp=True, to_tensor=True
    )
    back = inverse(item)
    assert torch.equal(back["prediction"].as_tensor(), image.as_tensor() * (1 if weak is None else 2))
    assert torch.equal(back["prediction"].affine, image.affine)
    assert back["strong_prediction"].shape == image.shape


def test_works_in_a_data_loader_with_a_cache(determinism):
    # a random transform, so a cache must not freeze it
    data = [{"image": metadata_image(), "label": torch.ones(1, 12, 10)} for _ in range(5)]
    runs = []
    for _ in range(2):
        determinism(7)
        dataset = CacheDataset(data, Compose([WeakStrongViewsd("image")]), num_workers=1, progress=False)
        loader = DataLoader(dataset, batch_size=2, num_workers=1)
        runs.append([[batch["image_strong"] for batch in loader] for _ in range(2)])
    assert [len(batch) for batch in runs[0][0]] == [2, 2, 1]
    assert all(torch.equal(a, b) for one, two in zip(*runs, strict=True) for a, b in zip(one, two, strict=True))
    first, second = runs[0]
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0][0], first[0][1])
