# SPDX-License-Identifier: Apache-2.0
"""Tiles of images: all that show tissue, once, as bytes, and never spoiled by a transform."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metassl_monai.data import TileDataset
from metassl_monai.transforms import WeakStrongViewsd


def picture(height: int, width: int) -> dict[str, Any]:
    """Red and green tell the row and column of a pixel; the label is 1 on even rows."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    return {"image": image, "label": (image[:1] % 2 == 0).to(torch.uint8), "case": f"{height}x{width}"}


def tiles(*items: dict[str, Any], **options: Any) -> TileDataset:
    arguments: dict[str, Any] = {"transform": dict, "tile_size": (4, 6), "progress": False, **options}
    return TileDataset(list(items), **arguments)


def corners(dataset: TileDataset) -> list[tuple[int, int]]:
    found = []
    for item in dataset:
        row, column = (item["image"][:2, 0, 0] * 255).round().int().tolist()
        found.append((row, column))
    return found


def test_tiles_lie_side_by_side_and_the_last_ends_at_the_edge() -> None:
    assert corners(tiles(picture(8, 12))) == [(0, 0), (0, 6), (4, 0), (4, 6)]
    assert corners(tiles(picture(9, 13))) == [(r, c) for r in (0, 4, 5) for c in (0, 6, 7)]


@pytest.mark.parametrize("size", [(4, 6), (7, 6), (9, 20), (15, 17)])
def test_every_pixel_is_in_some_tile(size: tuple[int, int]) -> None:
    dataset = tiles(picture(*size))
    seen = torch.zeros(size, dtype=torch.bool)
    for (row, column), item in zip(corners(dataset), dataset, strict=True):
        assert item["image"].shape == (3, 4, 6)
        assert item["label"].shape == (1, 4, 6)
        assert item["case"] == f"{size[0]}x{size[1]}"
        expected = picture(*size)
        region = (slice(None), slice(row, row + 4), slice(column, column + 6))
        torch.testing.assert_close(item["image"], expected["image"][region] / 255)
        assert item["label"].equal(expected["label"][region].float())
        seen[region[1:]] = True
    assert seen.all()


def test_a_small_image_is_padded_white_and_labeled_background() -> None:
    [item] = tiles({**picture(2, 3), "label": torch.ones(1, 2, 3, dtype=torch.uint8)})
    assert item["image"].shape == (3, 4, 6)
    assert (item["image"][:, 2:] == 1).all()
    assert (item["image"][:, :, 3:] == 1).all()
    assert item["label"].sum() == 6
    assert item["label"][0, :2, :3].all()


def test_tiles_without_enough_tissue_are_left_out() -> None:
    image = torch.full((3, 4, 24), 240, dtype=torch.uint8)
    image[1, :2, :6] = 200  # half of the first tile is pink: one channel is enough
    image[:, 0, 6:8] = 0  # 2 of 24 pixels of the second
    image[:, 0, 12:15] = 0  # 3 of 24 pixels of the third
    item = {"image": image, "label": torch.zeros(1, 4, 24, dtype=torch.uint8)}
    assert len(tiles(item)) == 2
    assert len(tiles(item, min_tissue=0.0)) == 4
    assert len(tiles(item, min_tissue=0.05)) == 3
    assert len(tiles(item, min_tissue=0.3)) == 1
    assert len(tiles(item, white=250)) == 4


def test_tiles_are_kept_as_bytes_of_their_own() -> None:
    dataset = tiles(picture(8, 12))
    for tile in dataset.tiles:
        for key, channels in (("image", 3), ("label", 1)):
            assert tile[key].dtype == torch.uint8
            assert tile[key].untyped_storage().nbytes() == channels * 4 * 6


def test_unlabeled_images_have_no_label() -> None:
    item = picture(4, 6)
    del item["label"]
    assert "label" not in tiles(item)[0]


def test_a_transform_of_a_tile_leaves_the_next_one_as_it_was() -> None:
    def spoil(item: dict[str, Any]) -> dict[str, Any]:
        item["image"].zero_()
        item["label"].fill_(7)
        return item

    dataset = tiles(picture(8, 12), tile_transform=spoil)
    assert dataset[3]["label"].eq(7).all()
    dataset.tile_transform = None
    assert corners(dataset)[3] == (4, 6)
    assert dataset[3]["label"].max() == 1


def test_several_images_follow_one_another() -> None:
    dataset = tiles(picture(4, 6), picture(4, 12))
    assert [item["case"] for item in dataset] == ["4x6", "4x12", "4x12"]


def test_images_that_are_no_bytes_are_refused() -> None:
    with pytest.raises(RuntimeError) as error:
        tiles({"image": torch.rand(3, 8, 12)})
    assert "let transform leave uint8" in str(error.value.__cause__)


def test_all_glass_is_refused_and_no_image_is_not() -> None:
    with pytest.raises(ValueError, match="no tile of 1 images has 10% tissue"):
        tiles({"image": torch.full((3, 8, 12), 255, dtype=torch.uint8)})
    assert len(tiles()) == 0


def test_strong_views_of_color_keep_weak_ones_and_treat_channels_alike() -> None:
    torch.manual_seed(0)
    views = WeakStrongViewsd("image").set_random_state(seed=3)
    image = torch.rand(3, 32, 32)
    changed = [views({"image": image.clone()}) for _ in range(20)]
    assert all(item["image"].equal(image) for item in changed)
    assert all(item["image_strong"].shape == image.shape for item in changed)
    # brightness and contrast move gray to gray: without noise, blur and cutout, channels stay equal
    gray = torch.rand(1, 32, 32).expand(3, -1, -1).clone()
    strong = [views({"image": gray.clone()})["image_strong"] for _ in range(20)]
    spread = torch.stack([(view - view.mean(dim=0)).abs().median() for view in strong])
    assert spread.min() < 1e-5
    assert all(not view.equal(gray) for view in strong)
