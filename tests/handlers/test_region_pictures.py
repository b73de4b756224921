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


def judged(spatial: tuple[int, ...] = (6, 7), with_regions: bool = True) -> JudgedPair:
    """Four images, with a foreground of 3, 1, 4 and 2 voxels."""
    torch.manual_seed(0)
    shape = (4, 1, *spatial)
    truth = torch.zeros(shape)
    for i, count in enumerate((3, 1, 4, 2)):
        truth[i].view(-1)[:count] = 1
    regions = torch.randint(0, 4, shape, dtype=torch.uint8)
    inside = torch.rand(shape) > 0.3
    reference, prediction = torch.randint(0, 2, (2, *shape))
    return JudgedPair(torch.rand(shape), truth, reference, prediction, inside, regions if with_regions else None)


def draw(pictures: RegionPictures, epoch: int, pair: JudgedPair, last: int = 1000) -> None:
    pictures(SimpleNamespace(state=SimpleNamespace(epoch=epoch, max_epochs=last)), pair)


def test_rows_are_the_images_with_the_most_foreground(drawn: list, tmp_path: Path) -> None:
    pair = judged()
    draw(RegionPictures(tmp_path, samples=2), 5, pair)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["regions_over_training.png", "unlabeled_0005.png"]
    images, truths, references, predictions, regions, names, title = drawn[0]
    for row, i in enumerate((2, 0)):
        assert np.array_equal(images[row], pair.image[i, 0].numpy())
        assert np.array_equal(truths[row], pair.truth[i, 0].numpy())
        assert np.array_equal(references[row], pair.reference[i, 0].numpy())
        assert np.array_equal(predictions[row], pair.prediction[i, 0].numpy())
        assert np.array_equal(regions[row] == NO_REGION, ~pair.inside[i, 0].numpy())
        assert np.array_equal(regions[row][pair.inside[i, 0]], pair.regions[i, 0][pair.inside[i, 0]].numpy())
    assert len(images) == 2
    assert names == ()
    assert title.endswith("epoch 5")


@pytest.mark.parametrize("with_regions", [True, False])
def test_volumes_and_losses_without_regions_can_be_drawn(with_regions: bool, drawn: list, tmp_path: Path) -> None:
    pair = judged((6, 7, 5), with_regions)
    draw(RegionPictures(tmp_path, samples=9), 1, pair)
    assert np.array_equal(drawn[0][0][0], pair.image[2, 0, ..., 2].numpy())
    assert len(drawn[0][0]) == 4
    assert (drawn[0][4] is not None) == with_regions


def test_epochs_follow_the_interval_and_the_last_one_is_drawn(drawn: list, tmp_path: Path) -> None:
    pictures, pair = RegionPictures(tmp_path, interval=3), judged()
    for epoch in range(1, 8):
        draw(pictures, epoch, pair, last=7)
    assert sorted(file.name for file in tmp_path.glob("unlabeled_*")) == [f"unlabeled_000{n}.png" for n in (3, 6, 7)]
    assert drawn[-1][5] == ("epoch 3", "epoch 6", "epoch 7")


def test_rows_over_the_training_stay_few_and_evenly_spaced(drawn: list, tmp_path: Path) -> None:
    pictures, pair = RegionPictures(tmp_path, samples=1), judged()
    for epoch in range(1, 21):
        draw(pictures, epoch, pair)
        assert len(drawn[-1][5]) <= 8
    assert drawn[-1][5] == (*(f"epoch {epoch}" for epoch in (1, 5, 9, 13, 17)), "epoch 20")


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").write_text("")
    draw(RegionPictures(tmp_path / "file"), 3, judged())
    assert "no picture of the regions of epoch 3" in caplog.text
