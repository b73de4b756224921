# SPDX-License-Identifier: Apache-2.0
"""Batches are transformed as MONAI transforms their samples: the same maps, the same distributions, aligned labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    EnsureTyped,
    Identityd,
    OneOf,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandRotate90d,
    RandRotated,
    RandScaleIntensityFixedMeand,
    RandSpatialCropd,
    RandStdShiftIntensityd,
)
from scipy.stats import ks_2samp

from metassl_monai.transforms import BatchTransform, WeakStrongViewsd

BOTH = ["image", "label"]
MODES = {"mode": ["bilinear", "nearest"], "padding_mode": "zeros"}
SMOOTH = {f"sigma_{axis}": (0.7, 0.7) for axis in "xyz"}
FLAT, DEEP = (12, 12), (8, 8, 6)
ALWAYS = {
    "flip": (RandFlipd(BOTH, prob=1, spatial_axis=0), FLAT),
    "flip of two axes": (RandFlipd(BOTH, prob=1, spatial_axis=[0, 2]), DEEP),
    "quarter turn": (RandRotate90d(BOTH, prob=1, max_k=1), FLAT),
    "quarter turn of other axes": (RandRotate90d(BOTH, prob=1, max_k=1, spatial_axes=(1, 0)), DEEP),
    "rotation": (RandRotated(BOTH, prob=1, range_x=(0.3, 0.3), **MODES), FLAT),
    "rotation about three axes": (
        RandRotated(BOTH, prob=1, range_x=(0.3, 0.3), range_y=(-0.2, -0.2), range_z=(0.1, 0.1), **MODES),
        DEEP,
    ),
    "affine": (
        RandAffined(
            BOTH,
            prob=1,
            rotate_range=((0.4, 0.4),),
            shear_range=((0.1, 0.1), (-0.05, -0.05)),
            translate_range=((1, 1), (-2, -2)),
            scale_range=((0.2, 0.2), (-0.1, -0.1)),
            **MODES,
        ),
        FLAT,
    ),
    "affine of a volume": (
        RandAffined(
            BOTH,
            prob=1,
            rotate_range=((0.2, 0.2), (0.1, 0.1), (-0.3, -0.3)),
            shear_range=((0.05, 0.05),) * 6,
            scale_range=((0.2, 0.2),) * 3,
            mode=["bilinear", "nearest"],
            padding_mode="border",
        ),
        DEEP,
    ),
    "turned, then rotated": (
        Compose([RandRotate90d(BOTH, prob=1, max_k=1), RandRotated(BOTH, prob=1, range_x=(0.2, 0.2), **MODES)]),
        FLAT,
    ),
    "one of": (
        OneOf(
            [Compose([RandRotate90d(BOTH, prob=1, max_k=1), RandFlipd(BOTH, prob=1, spatial_axis=0)]), Identityd(BOTH)],
            weights=[1, 0],
        ),
        FLAT,
    ),
    "contrast": (RandAdjustContrastd("image", prob=1, gamma=(1.4, 1.4)), FLAT),
    "blur": (RandGaussianSmoothd("image", prob=1, **SMOOTH), FLAT),
    "blur of a volume": (RandGaussianSmoothd("image", prob=1, **SMOOTH), DEEP),
}


def batch_of(number, shape, channels=2):
    random = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (number, 1, *shape), generator=random).float()
    return {"image": torch.rand(number, channels, *shape, generator=random), "label": label}


def one_by_one(transform, batch):
    """What the transform itself does to the samples of a batch."""
    number = len(batch["image"])
    items = [transform({key: value[i].clone() for key, value in batch.items()}) for i in range(number)]
    return {key: torch.stack([torch.as_tensor(item[key]) for item in items]) for key in items[0]}


@pytest.mark.parametrize("name", ALWAYS)
def test_what_always_happens_is_what_monai_does(name):
    transform, shape = ALWAYS[name]
    batch = batch_of(3, shape)
    expected, found = one_by_one(transform, batch), BatchTransform(transform)(batch)
    torch.testing.assert_close(found["image"], expected["image"], atol=2e-5, rtol=0)
    # a place between two voxels may be either's
    assert (found["label"] != expected["label"]).float().mean() < 0.02


def test_one_more_right_angle_is_one_more_turn():
    batch = batch_of(64, FLAT)
    transform = BatchTransform(RandRotate90d(BOTH, prob=1, max_k=3)).set_random_state(0)
    found = transform(batch)["label"]
    turns = [
        next(k for k in range(1, 4) if torch.equal(after, torch.rot90(before, k, (1, 2))))
        for before, after in zip(batch["label"], found, strict=True)
    ]
    assert set(turns) == {1, 2, 3}


INTENSITIES = {
    "contrast": RandAdjustContrastd("image", prob=0.5, gamma=(0.5, 1.8)),
    "blur": RandGaussianSmoothd("image", prob=0.4, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0)),
    "noise": RandGaussianNoised("image", prob=0.3, std=0.2),
    "noise of one width": RandGaussianNoised("image", prob=1, mean=0.1, std=0.2, sample_std=False),
    "strong view": WeakStrongViewsd("image"),
}


@pytest.mark.parametrize("name", INTENSITIES)
def test_intensities_are_drawn_from_the_same_distribution(name):
    """Means and deviations of many images, and how far they moved, by the test of Kolmogorov and Smirnov."""
    transform, number = INTENSITIES[name], 600
    image = batch_of(1, FLAT, channels=1)["image"]
    batch = {"image": image.expand(number, -1, -1, -1)}
    key = "image_strong" if name == "strong view" else "image"
    for part in [transform, getattr(getattr(transform, "views", None), "strong", None)]:
        if part is not None:
            part.set_random_state(1)
    expected = one_by_one(transform, batch)[key].flatten(1)
    found = BatchTransform(transform).set_random_state(2)(batch)[key].flatten(1)
    for statistic in (
        lambda x: x.mean(1),
        lambda x: x.std(1),
        lambda x: (x - image.flatten()).abs().mean(1),
        lambda x: x.amax(1),
    ):
        assert ks_2samp(statistic(expected).numpy(), statistic(found).numpy()).pvalue > 0.001
    unmoved = [((x - image.flatten()).abs().amax(1) < 1e-6).double().mean().item() for x in (expected, found)]
    assert math.isclose(*unmoved, abs_tol=0.08)


def test_moves_are_drawn_from_the_same_distribution():
    """Where an eccentric blob lies after the transforms of the ACDC bundle, and how large it is."""
    transform = Compose(
        [
            OneOf(
                [
                    Compose([RandRotate90d(BOTH, prob=0.75), RandFlipd(BOTH, prob=0.5, spatial_axis=0)]),
                    RandRotated(BOTH, prob=1, range_x=20 * math.pi / 180, **MODES),
                    Identityd(BOTH),
                ],
                weights=[0.5, 0.25, 0.25],
            ),
            RandAffined(BOTH, prob=0.9, rotate_range=0.5, scale_range=0.25, translate_range=[2, 1], **MODES),
            EnsureTyped(BOTH),
        ]
    )
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    blob = (-((rows - 20) ** 2 + (columns - 11) ** 2) / 8).exp()
    number = 600
    batch = {key: blob.expand(number, 1, 32, 32) for key in BOTH}
    transform.set_random_state(3)
    expected, found = one_by_one(transform, batch), BatchTransform(transform).set_random_state(4)(batch)

    def places(images):
        mass = images[:, 0].sum((1, 2))
        return [(images[:, 0] * axis).sum((1, 2)) / mass for axis in (rows, columns)] + [mass]

    for one, other in zip(places(expected["image"]), places(found["image"]), strict=True):
        assert ks_2samp(one.numpy(), other.numpy()).pvalue > 0.001


def test_labels_stay_where_their_images_are():
    """An edge of the image and of its label part by half a voxel at most, to neither side."""
    transform = RandAffined(BOTH, prob=1, rotate_range=3.14, scale_range=0.3, shear_range=0.1, **MODES)
    disc = (torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")) - 30.0).norm(dim=0) < 17
    batch = {key: disc.float().expand(40, 1, 64, 64) for key in BOTH}
    moved = BatchTransform(transform).set_random_state(0)(batch)
    image, label = moved["image"] > 0.5, moved["label"] == 1
    area = label.sum().item()
    assert (image != label).sum().item() < 0.02 * area
    assert abs(image.sum().item() - area) < 0.002 * area


def test_the_same_seed_draws_the_same():
    batch = batch_of(5, FLAT)
    chain = Compose([RandFlipd(BOTH, prob=0.5, spatial_axis=1), RandAffined(BOTH, prob=0.5, rotate_range=1.0, **MODES)])
    first, second = (BatchTransform(chain).set_random_state(7)(batch) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in batch)


def test_samples_of_a_batch_are_drawn_apart():
    batch = {key: value[:1].expand(8, -1, -1, -1) for key, value in batch_of(1, FLAT).items()}
    moved = BatchTransform(RandAffined(BOTH, prob=1, rotate_range=1.0, **MODES)).set_random_state(0)(batch)
    assert len({tuple(image.flatten().tolist()) for image in moved["image"]}) == 8


def test_a_key_that_is_missing_is_left_out():
    batch = {"image": batch_of(2, FLAT)["image"]}
    assert BatchTransform(RandFlipd(BOTH, prob=1, spatial_axis=0, allow_missing_keys=True))(batch).keys() == {"image"}


def test_a_strong_view_leaves_the_weak_one():
    batch = batch_of(4, FLAT)
    views = BatchTransform(WeakStrongViewsd("image")).set_random_state(0)(batch)
    assert torch.equal(views["image"], batch["image"])
    assert not torch.equal(views["image_strong"], batch["image"])


def test_the_crop_is_left_to_whoever_makes_the_batch():
    crop = RandSpatialCropd(BOTH, roi_size=[4, 5], random_size=False)
    transform = BatchTransform(Compose([crop, EnsureTyped(BOTH)]))
    assert list(transform.roi_size) == [4, 5]
    assert transform.steps == []


@pytest.mark.parametrize(
    ("transform", "named"),
    [
        (RandHistogramShiftd("image"), "RandHistogramShiftd"),
        (RandScaleIntensityFixedMeand("image", factors=0.1), "RandScaleIntensityFixedMeand"),
        (RandFlipd(BOTH), "spatial_axis"),
        (RandRotated(BOTH, keep_size=False), "keep_size"),
        (RandAffined(BOTH, spatial_size=(4, 4)), "spatial_size"),
        (RandAdjustContrastd("image", invert_image=True), "invert_image"),
        (RandGaussianSmoothd("image", approx="sampled"), "approx"),
        (RandSpatialCropd(BOTH, roi_size=[4, 4], random_size=True), "random_size"),
        (OneOf([RandFlipd(BOTH, spatial_axis=0), RandGaussianNoised("image")]), "OneOf"),
        (WeakStrongViewsd("image", strong=RandStdShiftIntensityd("image", 0.1)), "WeakStrongViewsd"),
        (Compose([RandFlipd(BOTH, spatial_axis=0), RandSpatialCropd(BOTH, roi_size=[4, 4])]), "RandSpatialCropd"),
    ],
)
def test_what_is_not_known_for_batches_is_named(transform, named):
    with pytest.raises(ValueError, match=named):
        BatchTransform(transform)


def test_sides_that_differ_are_not_turned():
    with pytest.raises(ValueError, match="sides must be equal"):
        BatchTransform(RandRotate90d(BOTH, prob=1))(batch_of(2, (8, 12)))


def test_random_streams_of_numpy_and_torch_are_left_alone():
    state, before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    BatchTransform(RandAffined(BOTH, prob=1, rotate_range=1.0, **MODES))(batch_of(2, FLAT))
    assert (np.random.get_state()[1] == state).all()
    assert torch.equal(torch.random.get_rng_state(), before)
