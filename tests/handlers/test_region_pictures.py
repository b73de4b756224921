# SPDX-License-Identifier: Apache-2.0
"""Pictures of unlabeled images show what was judged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from metassl_monai.handlers import RegionPictures, region_pictures
from metassl_monai.handlers.judged_pairs import JudgedPair
from metassl_monai.report import NO_REGION


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    original = region_pictures.quadripartition_figure

    def record(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **keywords)

    monkeypatch.setattr(region_pictures, "quadripartition_figure", record)
    return calls


def judged(spatial: tuple[int, ...] = (6, 7), with_regions: bool = True) -> tuple[JudgedPair, torch.Tensor]:
    """Four images, with a foreground of 3, 1, 4 and 2 voxels in the hidden truth."""
    torch.manual_seed(0)
    shape = (4, 1, *spatial)
    truth = torch.zeros(shape)
    for i, count in enumerate((3, 1, 4, 2)):
        truth[i].view(-1)[:count] = 1
    regions = torch.randint(0, 4, shape, dtype=torch.uint8)
    inside = torch.rand(shape) > 0.3
    reference, prediction = torch.randint(0, 2, (2, *shape))
    return JudgedPair(torch.rand(shape), reference, prediction, inside, regions if with_regions else None), truth


def draw(pictures: RegionPictures, epoch: int, pair: JudgedPair, truth: Any = None, last: int = 1000) -> None:
    pictures(SimpleNamespace(state=SimpleNamespace(epoch=epoch, max_epochs=last)), pair, truth)


def test_rows_are_the_images_with_the_most_foreground(drawn: list, tmp_path: Path) -> None:
    pair, truth = judged()
    draw(RegionPictures(tmp_path, samples=2, name="monitored"), 5, pair, truth)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["monitored_0005.png", "monitored_over_training.png"]
    images, truths, references, predictions, regions, names, title = drawn[0]
    for row, i in enumerate((2, 0)):
        assert np.array_equal(images[row], pair.image[i, 0].numpy())
        assert np.array_equal(truths[row], truth[i, 0].numpy())
        assert np.array_equal(references[row], (pair.reference * pair.inside)[i, 0].numpy())
        assert np.array_equal(predictions[row], (pair.prediction * pair.inside)[i, 0].numpy())
        assert np.array_equal(regions[row] == NO_REGION, ~pair.inside[i, 0].numpy())
        assert np.array_equal(regions[row][pair.inside[i, 0]], pair.regions[i, 0][pair.inside[i, 0]].numpy())
    assert len(images) == 2
    assert names == ("", "")
    assert title.endswith("epoch 5")


@pytest.mark.parametrize("with_regions", [True, False])
def test_of_volumes_slices_with_hidden_truth_are_drawn(with_regions: bool, drawn: list, tmp_path: Path) -> None:
    pair, truth = judged((6, 7, 5), with_regions)
    draw(RegionPictures(tmp_path, samples=9, slices=2), 1, pair, truth)
    images, _, _, _, regions, names, _ = drawn[0]
    assert names[:2] == ("slice 2 of 5", "slice 4 of 5")  # of the image with four voxels, which lie in slices 1 to 4
    assert np.array_equal(images[0], pair.image[2, 0, ..., 1].numpy())
    assert len(images) == 2 + 2 + 2 + 1
    assert (regions is not None) == with_regions
    [course] = drawn[1][0]
    assert np.array_equal(course, images[1])


def test_without_hidden_truth_the_first_images_are_drawn_in_slices_that_stay(drawn: list, tmp_path: Path) -> None:
    pair, _ = judged((6, 7, 5))
    draw(RegionPictures(tmp_path, samples=2), 1, pair)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["unlabeled_0001.png", "unlabeled_over_training.png"]
    images, truths, *_, names, _ = drawn[0]
    assert truths is None
    assert names == ("slice 1 of 5", "slice 3 of 5", "slice 5 of 5") * 2
    assert np.array_equal(images[3], pair.image[1, 0, ..., 0].numpy())


def test_epochs_follow_the_interval_and_the_last_one_is_drawn(drawn: list, tmp_path: Path) -> None:
    pictures, (pair, _) = RegionPictures(tmp_path, interval=3), judged()
    for epoch in range(1, 8):
        draw(pictures, epoch, pair, last=7)
    assert sorted(file.name for file in tmp_path.glob("unlabeled_0*")) == [f"unlabeled_000{n}.png" for n in (3, 6, 7)]
    assert drawn[-1][5] == ("epoch 3", "epoch 6", "epoch 7")


def test_rows_over_the_training_stay_few_and_evenly_spaced(
    drawn: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_pictures, "write_figure", lambda figure, path: None)
    pictures, (pair, _) = RegionPictures(tmp_path, samples=1), judged()
    for epoch in range(1, 21):
        draw(pictures, epoch, pair)
        assert len(drawn[-1][5]) <= 8
    assert drawn[-1][5] == (*(f"epoch {epoch}" for epoch in (1, 5, 9, 13, 17)), "epoch 20")


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").write_text("")
    draw(RegionPictures(tmp_path / "file"), 3, judged()[0])
    assert "no picture of the regions of epoch 3" in caplog.text
