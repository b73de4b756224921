# SPDX-License-Identifier: Apache-2.0
"""The box of the labeled cases: where it lies, and that no other annotation is read for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged

from metassl_monai.data import DatalistError, labeled_box, prepare_la, read_datalist, write_datalist
from metassl_monai.data.split import published_split
from metassl_monai.transforms.relative_crop import RelativeCropd

TRAIN, TEST = published_split("la")["train"], published_split("la")["test"]
SHAPES = [(40, 20, 10), (20, 40, 8)]
BOXES = [((10, 4, 2), (30, 10, 4)), ((8, 20, 4), (18, 30, 8))]


@pytest.fixture
def dataset(tmp_path: Path, write_la: Callable[..., Path], write_nrrd: Callable[..., None]) -> Path:
    """Two labeled cases with known boxes, and drawn ones for all other lists."""
    write_la(tmp_path, [*TRAIN[2:5], TEST[0]], (16, 16, 8))
    for case, shape, (start, end) in zip(TRAIN, SHAPES, BOXES, strict=False):
        label = np.zeros(shape, np.uint8)
        label[tuple(map(slice, start, end))] = 255
        (tmp_path / case).mkdir()
        write_nrrd(tmp_path / case / "lgemri.nrrd", label)
        write_nrrd(tmp_path / case / "laendo.nrrd", label)
    write_datalist(prepare_la(tmp_path, labeled=2, validation=1), tmp_path / "datalist.json")
    return tmp_path


def _box(dataset: Path, **options: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return labeled_box(dataset / "datalist.json", dataset, **options)


def test_box_is_the_union_in_fractions_with_a_margin_and_z_whole(dataset: Path) -> None:
    start, end = _box(dataset)
    assert start == pytest.approx((0.25 - 0.05, 0.2 - 0.05, 0))
    assert end == pytest.approx((0.9 + 0.05, 0.75 + 0.05, 1))
    assert all(type(value) is float for value in start + end)


def test_margin_is_for_each_axis_and_ends_at_the_image(dataset: Path) -> None:
    start, end = _box(dataset, margin=(0.2, None, 0.0))
    assert start == pytest.approx((0.05, 0, 0.2))
    assert end == pytest.approx((1, 1, 1))


def test_no_other_annotation_is_read(dataset: Path) -> None:
    before = _box(dataset)
    for case in [*TRAIN[2:5], TEST[0]]:
        (dataset / case / "laendo.nrrd").write_text("unreadable")
    assert _box(dataset) == before


def test_annotation_without_foreground_adds_nothing(dataset: Path, write_nrrd: Callable[..., None]) -> None:
    write_nrrd(dataset / TRAIN[1] / "laendo.nrrd", np.zeros(SHAPES[1], np.uint8))
    assert _box(dataset, margin=(0, 0, 0)) == ((0.25, 0.2, 0.2), (0.75, 0.5, 0.4))
    write_nrrd(dataset / TRAIN[0] / "laendo.nrrd", np.zeros(SHAPES[0], np.uint8))
    with pytest.raises(DatalistError, match="no labeled case has any foreground"):
        _box(dataset)


def test_what_nobody_annotated_is_no_foreground(dataset: Path, write_nrrd: Callable[..., None]) -> None:
    before = _box(dataset, margin=(0, 0, 0))
    for case, shape, (start, end) in zip(TRAIN, SHAPES, BOXES, strict=False):
        label = np.full(shape, 7, np.uint8)
        label[tuple(map(slice, start, end))] = 255
        write_nrrd(dataset / case / "laendo.nrrd", label)
    write_datalist(read_datalist(dataset / "datalist.json") | {"ignore": 7}, dataset / "datalist.json")
    assert _box(dataset, margin=(0, 0, 0)) == before


def test_margin_for_another_number_of_axes_is_refused(dataset: Path) -> None:
    with pytest.raises(DatalistError, match="is 3D, and the margin has 2 axes"):
        _box(dataset, margin=(0.1, 0.1))


def test_crop_holds_every_labeled_voxel_and_comes_back(dataset: Path) -> None:
    start, end = _box(dataset, margin=(0, 0, None))
    for case in TRAIN[:2]:
        crop = Compose(
            [
                LoadImaged("image", image_only=True),
                EnsureChannelFirstd("image"),
                RelativeCropd("image", start, end, min_size=(8, 8, 4)),
            ]
        )
        data = crop({"image": str(dataset / case / "laendo.nrrd")})
        whole = LoadImaged("image", image_only=True)({"image": str(dataset / case / "laendo.nrrd")})["image"]
        assert data["image"].shape[1:] < whole.shape
        assert data["image"].sum() == whole.sum()
        data["prediction"] = MetaTensor(data["image"].as_tensor().clone())
        back = Invertd("prediction", crop, orig_keys="image", nearest_interp=False)(data)["prediction"]
        assert back[0].equal(whole)


def test_real_box_is_inside_the_image_and_z_is_whole(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "la").is_dir():
        pytest.skip("the LA cases are not here")
    write_datalist(prepare_la(real_data / "la", labeled=2), tmp_path / "la.json")
    start, end = labeled_box(tmp_path / "la.json", real_data / "la")
    assert all(0 <= low < high <= 1 for low, high in zip(start, end, strict=True))
    assert (start[2], end[2]) == (0, 1)
