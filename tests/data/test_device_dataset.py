# SPDX-License-Identifier: Apache-2.0
"""A data set on the device gives what the one that it was made of holds: whole, cut at random places, in float32."""

from __future__ import annotations

import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, set_rnd
from monai.transforms import Compose, RandFlipd, RandSpatialCropd

from metassl_monai.data import DeviceDataset, SliceDataset, TileDataset


def volume(shape, channels=1, start=0.0):
    voxels = torch.arange(float(channels * torch.Size(shape).numel())).view(channels, *shape) + start
    return {"image": voxels / voxels.max(), "label": (voxels[:1] % 3)}


def identity(item):
    return item


def batch(dataset, indices):
    return DeviceDataset(dataset, "cpu").__getitems__(indices)


def test_slices_are_those_of_the_volumes():
    slices = SliceDataset([volume((6, 8, 3)), volume((6, 8, 4), start=7)], identity, progress=False)
    found = batch(slices, [0, 6, 2, 6])
    assert found["image"].dtype == found["label"].dtype == torch.float32
    for key in ("image", "label"):
        expected = torch.stack([slices[i][key] for i in (0, 6, 2, 6)])
        torch.testing.assert_close(found[key], expected, atol=3e-4 if key == "image" else 0, rtol=0)


def test_slices_that_nobody_annotated_are_in_neither_stream_twice():
    half = volume((4, 4, 4))
    half["label"][..., 2:] = -1
    labeled = SliceDataset([half], identity, progress=False)
    unlabeled = SliceDataset([{"image": volume((4, 4, 2))["image"]}], identity, progress=False, unannotated_of=labeled)
    assert [len(DeviceDataset(each, "cpu")) for each in (labeled, unlabeled)] == [2, 4]
    assert batch(unlabeled, [3]).keys() == {"image"}
    torch.testing.assert_close(batch(unlabeled, [3])["image"][0], unlabeled[3]["image"], atol=3e-4, rtol=0)


def test_many_classes_are_kept_apart():
    many = {
        "image": torch.zeros(1, 4, 4, 2),
        "label": torch.arange(250.0, 266.0).view(1, 4, 4, 1).expand(-1, -1, -1, 2),
    }
    found = batch(SliceDataset([many], identity, progress=False), [0])
    assert torch.equal(found["label"][0], many["label"][..., 0])


def test_ignored_voxels_stay_ignored():
    part = volume((4, 4, 2))
    part["label"][:, :2] = -1
    assert torch.equal(batch(SliceDataset([part], identity, progress=False), [1])["label"][0], part["label"][..., 1])


def test_tiles_are_kept_in_bytes_and_given_as_fractions():
    image = torch.randint(0, 200, (3, 8, 8), dtype=torch.uint8)
    tiles = TileDataset([{"image": image, "label": torch.ones(1, 8, 8)}], identity, tile_size=(4, 4), progress=False)
    dataset = DeviceDataset(tiles, "cpu")
    assert dataset.samples["image"].dtype == torch.uint8
    torch.testing.assert_close(dataset.__getitems__([2])["image"][0], tiles[2]["image"])


def patches(*shapes, roi=(3, 4, 2)):
    """Volumes whose voxels say where they lie."""
    items = []
    for shape in shapes:
        places = torch.stack(torch.meshgrid(*(torch.arange(float(side)) for side in shape), indexing="ij"))
        items.append({"image": places, "label": places[:1]})
    crop = RandSpatialCropd(["image", "label"], roi_size=roi, random_size=False)
    return CacheDataset(items, Compose([Compose([crop])]), progress=False)


def test_patches_are_cut_at_every_place_and_labels_with_them():
    dataset = DeviceDataset(patches((5, 6, 4), (3, 4, 5)), "cpu")
    set_rnd(dataset, 0)
    found = dataset.__getitems__([0] * 300)
    assert found["image"].shape == (300, 3, 3, 4, 2)
    assert torch.equal(found["image"][:, :1], found["label"])
    starts = {tuple(corner.int().tolist()) for corner in found["image"][:, :, 0, 0, 0]}
    assert starts == {(i, j, k) for i in range(3) for j in range(3) for k in range(3)}
    assert torch.equal(found["image"][0, :, -1, -1, -1] - found["image"][0, :, 0, 0, 0], torch.tensor([2.0, 3, 1]))
    assert {tuple(corner.int().tolist())[:2] for corner in dataset.__getitems__([1] * 20)["image"][:, :, 0, 0, 0]} == {
        (0, 0)
    }


def test_a_loader_asks_for_whole_batches_and_a_seed_repeats_them():
    slices = SliceDataset([volume((4, 4, 9))], identity, RandFlipd(["image", "label"], spatial_axis=0), progress=False)
    dataset = DeviceDataset(slices, "cpu")
    loader = DataLoader(dataset, batch_size=3, num_workers=0, collate_fn=identity)
    drawn = []
    for _ in range(2):
        set_rnd(dataset, 5)
        drawn.append([found["image"] for found in loader])
    assert [len(images) for images in drawn[0]] == [3, 3, 3]
    assert all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))


def test_an_empty_data_set_is_empty():
    assert len(DeviceDataset(SliceDataset([], identity, progress=False), "cpu")) == 0


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (SliceDataset([volume((4, 4, 2)), volume((6, 4, 2))], identity, progress=False), "resize or crop"),
        (patches((2, 6, 4)), "smaller than the patch"),
        (Dataset([volume((4, 4))]), "keeps no samples"),
        (SliceDataset([{"image": torch.full((1, 4, 4, 2), 7e4)}], identity, progress=False), "cannot hold"),
    ],
)
def test_what_cannot_be_a_batch_is_told(dataset, message):
    with pytest.raises(ValueError, match=message):
        DeviceDataset(dataset, "cpu")
