# SPDX-License-Identifier: Apache-2.0
"""Slices of volumes: all of them, once, and never spoiled by a transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor, set_rnd
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from metassl_monai.data import SliceDataset
from metassl_monai.ignore import IGNORE

DEPTHS = (3, 5, 1)


def volumes() -> list[dict[str, Any]]:
    """Every voxel tells its volume and slice: ``100 * volume + slice`` in the image, plus one in the label."""
    found = []
    for number, depth in enumerate(DEPTHS):
        image = (100 * number + torch.arange(depth)).float().expand(1, 4, 6, depth).clone()
        found.append({"image": image, "label": image + 1, "case": f"case{number}"})
    return found


def identity(item: dict[str, Any]) -> dict[str, Any]:
    return item


def dataset(**arguments: Any) -> SliceDataset:
    arguments = {"data": volumes(), "transform": identity, "progress": False, **arguments}
    return SliceDataset(**arguments)


def test_every_slice_of_every_volume_comes_once_and_in_order() -> None:
    slices = dataset()
    assert len(slices) == sum(DEPTHS)
    assert [item["image"].unique().item() for item in slices] == [0, 1, 2, 100, 101, 102, 103, 104, 200]
    assert all(item["label"].equal(item["image"] + 1) for item in slices)
    assert all(item["image"].shape == item["label"].shape == (1, 4, 6) for item in slices)


def test_what_is_no_tensor_comes_with_every_slice() -> None:
    assert [item["case"] for item in dataset()] == ["case0"] * 3 + ["case1"] * 5 + ["case2"]


def test_slices_that_nobody_annotated_go_to_the_unlabeled_ones() -> None:
    labeled = volumes()[:2]
    labeled[0]["label"][..., 1] = IGNORE
    labeled[1]["label"][..., 3:] = IGNORE
    labeled[1]["label"][:, 0, 0, 0] = IGNORE  # one voxel of a slice
    annotated = dataset(data=labeled)
    assert [item["image"].unique().item() for item in annotated] == [0, 2, 100, 101, 102]
    unlabeled = dataset(data=[{"image": torch.full((1, 4, 6, 2), 7.0)}], unannotated_of=annotated)
    assert [item["image"].unique().item() for item in unlabeled] == [7, 7, 1, 103, 104]
    assert all("label" not in item for item in unlabeled)


def test_slices_are_taken_along_the_last_axis() -> None:
    volume = torch.randn(2, 4, 6, 5)
    slices = dataset(data=[{"image": volume}])
    assert all(slices[z]["image"].equal(volume[:, :, :, z]) for z in range(5))


def test_volumes_are_transformed_once_when_the_set_is_made() -> None:
    calls: list[str] = []

    def transform(item: dict[str, Any]) -> dict[str, Any]:
        calls.append(item["case"])
        return {**item, "image": item["image"] + 0.5}

    slices = dataset(transform=transform, num_workers=0)
    for _ in range(2):
        assert slices[4]["image"].unique().item() == 101.5
    assert sorted(calls) == ["case0", "case1", "case2"]


def test_slice_transform_is_applied_to_each_access() -> None:
    calls: list[float] = []

    def transform(item: dict[str, Any]) -> dict[str, Any]:
        calls.append(item["image"].unique().item())
        return {"image": item["image"] * 2}

    slices = dataset(slice_transform=transform)
    assert calls == []
    assert [slices[i]["image"].unique().item() for i in (4, 4, 0)] == [202, 202, 0]
    assert set(slices[1]) == {"image"}
    assert calls == [101, 101, 0, 1]


def test_transform_that_works_in_place_does_not_spoil_the_volume() -> None:
    def spoil(item: dict[str, Any]) -> dict[str, Any]:
        item["image"].fill_(-7)
        item["case"] = "spoiled"
        return item

    slices = dataset(slice_transform=spoil)
    list(slices)
    slices.slice_transform = None
    assert [item["image"].unique().item() for item in slices][:4] == [0, 1, 2, 100]
    assert slices[0]["case"] == "case0"


def test_item_changed_by_its_user_does_not_spoil_the_volume() -> None:
    slices = dataset()
    slices[0]["image"].zero_().sub_(1)
    assert slices[0]["image"].unique().item() == 0


def test_given_volumes_are_left_alone() -> None:
    data = volumes()
    dataset(data=data, slice_transform=lambda item: item)[3]["image"].fill_(-1)
    assert all(item["image"].equal(fresh["image"]) for item, fresh in zip(data, volumes(), strict=True))


def test_meta_tensors_keep_their_kind() -> None:
    data = [{"image": MetaTensor(torch.randn(1, 4, 6, 3), meta={"filename_or_obj": "a.nii"})}]
    item = dataset(data=data)[2]["image"]
    assert isinstance(item, MetaTensor)
    assert item.meta["filename_or_obj"] == "a.nii"
    assert item.as_tensor().equal(data[0]["image"].as_tensor()[..., 2])


def random_transform() -> Compose:
    return Compose([RandFlipd(["image", "label"], prob=0.5), RandGaussianNoised("image", prob=1.0)])


def test_seeding_the_set_reaches_its_random_transforms() -> None:
    """``SeedEachEpoch`` and MONAI's workers seed a data set with ``set_rnd``."""
    slices = dataset(slice_transform=random_transform())
    draws = []
    for seed in (1, 2, 1):
        set_rnd(slices, seed=seed)
        draws.append(torch.stack([item["image"] for item in slices]))
    assert draws[0].equal(draws[2])
    assert not draws[0].equal(draws[1])


def test_image_and_label_of_a_slice_are_transformed_alike() -> None:
    data = [{"image": torch.arange(24.0).view(1, 4, 6, 1), "label": torch.arange(24.0).view(1, 4, 6, 1) + 1}]
    slices = dataset(data=data, slice_transform=RandFlipd(["image", "label"], prob=0.5))
    items = [slices[0] for _ in range(20)]
    assert all(item["label"].equal(item["image"] + 1) for item in items)
    assert len({tuple(item["image"].flatten().tolist()) for item in items}) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_batches_slices_of_different_volumes(workers: int) -> None:
    batches = list(DataLoader(dataset(), batch_size=3, num_workers=workers))
    assert [batch["image"].shape for batch in batches] == [(3, 1, 4, 6)] * 3
    values = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])
    assert values.tolist() == [0, 1, 2, 100, 101, 102, 103, 104, 200]
    assert batches[1]["case"] == ["case1"] * 3
