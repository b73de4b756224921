# SPDX-License-Identifier: Apache-2.0
"""The crop by fractions: which voxels it keeps, its least size, and the way back."""

from __future__ import annotations

import itertools

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandFlipd, Spacing

from metassl_monai.transforms.relative_crop import RelativeCrop, RelativeCropd


def _kept(size: int, start: float, end: float, least: int = 1) -> list[int]:
    return RelativeCrop([start], [end], least)(torch.arange(size)[None])[0].int().tolist()


@pytest.mark.parametrize(
    ("size", "start", "end", "least", "first", "last"),
    [
        (10, 0.2, 0.6, 1, 2, 5),
        (10, 0.25, 0.55, 1, 2, 5),
        (10, 0.4, 0.6, 5, 3, 7),
        (10, 0.4, 0.6, 6, 2, 7),
        (10, 0.0, 0.2, 6, 0, 5),
        (10, 0.8, 1.0, 6, 4, 9),
        (10, 0.4, 0.6, 20, 0, 9),
        (10, 0.0, 1.0, 4, 0, 9),
        (7, 0.01, 0.02, 1, 0, 0),
    ],
)
def test_voxels_that_are_kept(size: int, start: float, end: float, least: int, first: int, last: int) -> None:
    assert _kept(size, start, end, least) == list(range(first, last + 1))


def test_fractions_of_whole_voxels_give_these_voxels() -> None:
    for size in range(1, 60):
        for low, high in itertools.combinations(range(size + 1), 2):
            assert _kept(size, low / size, high / size) == list(range(low, high))


def test_every_axis_has_its_own_box() -> None:
    image = torch.randn(2, 10, 20, 30)
    cropped = RelativeCrop((0.1, 0.5, 0.0), (0.5, 0.6, 1.0), (1, 6, 40))(image)
    assert cropped.equal(image[:, 1:5, 8:14, :])


@pytest.mark.parametrize("lazy", [False, True])
def test_inverse_pads_with_zeros_to_the_whole_image(lazy: bool) -> None:
    image = MetaTensor(torch.rand(1, 9, 12, 7) + 1, affine=torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0])))
    crop = Compose([RelativeCropd("image", (0.4, 0.1, 0.0), (0.7, 0.5, 1.0))], lazy=lazy)
    data = crop({"image": image})
    assert data["image"].shape == (1, 4, 5, 7)
    assert data["image"].affine[:3, 3].tolist() == [6, 1, 0]
    back = crop.transforms[0].inverse(data)["image"]
    expected = torch.zeros_like(image.as_tensor())
    expected[:, 3:7, 1:6] = image.as_tensor()[:, 3:7, 1:6]
    assert back.as_tensor().equal(expected)
    assert back.affine.equal(image.affine)


def test_inverse_within_a_chain() -> None:
    image = MetaTensor(torch.rand(1, 9, 12))
    chain = Compose([RelativeCropd("image", (0.4, 0.1), (0.7, 0.5), min_size=6), RandFlipd("image", prob=1.0)])
    data = chain({"image": image})
    assert data["image"].shape == (1, 6, 6)
    back = chain.inverse(data)["image"]
    assert back.shape == image.shape
    assert back[:, 2:8, 1:7].equal(image[:, 2:8, 1:7])


def test_box_is_relative_so_resampling_does_not_move_it() -> None:
    image = MetaTensor(torch.zeros(1, 20, 20))
    image[:, 5:10, 10:15] = 1
    finer = Spacing((0.5, 0.5), mode="nearest")(image)
    assert finer.shape[1] > 30
    cropped = RelativeCrop((0.2, 0.45), (0.55, 0.8))(finer)
    assert cropped.sum() == finer.sum()


def test_missing_key_is_passed_by_when_allowed() -> None:
    data = {"image": torch.zeros(1, 4, 4)}
    crop = RelativeCropd(["image", "label"], (0, 0), (0.5, 1), allow_missing_keys=True)
    assert crop(data)["image"].shape == (1, 2, 4)
    with pytest.raises(KeyError):
        RelativeCropd(["image", "label"], (0, 0), (0.5, 1))(data)


@pytest.mark.parametrize(
    ("start", "end", "least", "message"),
    [
        ((0.1,), (0.2, 0.3), 1, "one value an axis"),
        ((0.1, 0.1), (0.2, 0.3), (1,), "one value an axis"),
        ((0.5,), (0.5,), 1, "0 <= start < end <= 1"),
        ((-0.1,), (0.5,), 1, "0 <= start < end <= 1"),
        ((0.1,), (50,), 1, "0 <= start < end <= 1"),
    ],
)
def test_impossible_boxes_are_refused(start: tuple, end: tuple, least: int | tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RelativeCrop(start, end, least)


def test_image_with_another_number_of_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="the image has 3 spatial axes and the box 2"):
        RelativeCrop((0, 0), (1, 1))(torch.zeros(1, 4, 4, 4))
