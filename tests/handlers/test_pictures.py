# SPDX-License-Identifier: Apache-2.0
"""Pictures are written, with the panels they promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metassl_monai.handlers import History, TrainingCurves, TrainingPictures, TrainingStatistics, pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What each figure was asked to show."""
    calls: list[tuple[Any, ...]] = []
    original = pictures.overlay_figure

    def record(*arguments: Any, **keywords: Any) -> Any:
        calls.append((*arguments, keywords))
        return original(*arguments, **keywords)

    monkeypatch.setattr(pictures, "overlay_figure", record)
    return calls


def width(file: Path) -> int:
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 0
        return image.width


@pytest.mark.parametrize(("kind", "panels"), [("metassl", 4), ("own", 3)])
@pytest.mark.parametrize("name", ["supervised", "cps"])
def test_picture_of_a_run_shows_regions_where_the_loss_has_them(
    name: str, kind: str, panels: int, make_run: Callable, tmp_path: Path
) -> None:
    make_run(name, kind=kind, epochs=1, handlers=[TrainingPictures(tmp_path / "pictures")]).train()
    unlabeled = ["unlabeled_0001.png", "unlabeled_over_training.png"] if name == "cps" else []
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.name for file in files] == ["epoch_0001.png", *unlabeled]
    for file in files:
        assert width(file) == pytest.approx(panels * 2.4 * 120, abs=2)


def test_pictures_follow_the_interval_and_the_last_epoch_is_always_drawn(make_run: Callable, tmp_path: Path) -> None:
    make_run("supervised", epochs=3, handlers=[TrainingPictures(tmp_path / "pictures", interval=2)]).train()
    assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == ["epoch_0002.png", "epoch_0003.png"]


def test_pictures_of_an_earlier_training_go_and_those_of_a_resumed_one_stay(make_run: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("epoch_0009", "monitored_0002", "unlabeled_over_training", "accuracy", "epoch_mine", "holiday_0001"):
        (folder / f"{name}.png").touch()
    make_run("supervised", epochs=1, handlers=[TrainingPictures(folder)]).train()
    of_the_user = ["epoch_mine.png", "holiday_0001.png"]
    assert sorted(file.name for file in folder.iterdir()) == ["epoch_0001.png", *of_the_user]
    make_run("supervised", epochs=2, resume=True, handlers=[TrainingPictures(folder)]).train()
    assert sorted(file.name for file in folder.iterdir()) == ["epoch_0001.png", "epoch_0002.png", *of_the_user]


def test_panels_are_the_labeled_samples_of_the_last_batch(make_run: Callable, drawn: list, tmp_path: Path) -> None:
    run = make_run("mean_teacher", epochs=1, handlers=[TrainingPictures(tmp_path)]).train()
    [(images, truths, predictions, regions, keywords)] = drawn
    output = run.trainer.state.output
    assert len(images) == len(truths) == len(predictions) == len(regions) == len(output) > 0
    loss = run.method.labeled_losses["network"]
    for i, item in enumerate(output):
        assert np.array_equal(images[i], item["image"][0].numpy())
        assert np.array_equal(truths[i], item["label"][0].numpy())
        assert np.array_equal(predictions[i], item["pred"].argmax(0).numpy())
        assert np.array_equal(regions[i], loss.regions[i, 0].numpy())
    assert keywords["title"].endswith("epoch 1")


def test_number_of_samples_is_honored(make_run: Callable, drawn: list, tmp_path: Path) -> None:
    make_run("supervised", epochs=1, handlers=[TrainingPictures(tmp_path, samples=1)]).train()
    assert [len(part) for part in drawn[0][:4]] == [1, 1, 1, 1]


def test_a_picture_that_cannot_be_written_is_a_warning(make_run: Callable, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "pictures").write_text("a file where the folder should be")
    run = make_run("supervised", epochs=2, handlers=[TrainingPictures(tmp_path / "pictures")]).train()
    assert run.trainer.state.epoch == 2
    assert [record.levelname for record in caplog.records if "no picture of epoch" in record.message] == ["WARNING"] * 2


def test_curves_are_drawn_at_the_end_of_what_the_history_holds(make_run: Callable, tmp_path: Path) -> None:
    always = ["learning_rate.png", "losses.png"]
    for kind, expected in (("metassl", ["counts.png", *always, "thresholds.png"]), ("own", always)):
        history, folder = tmp_path / kind / "history.csv", tmp_path / kind / "pictures"
        folder.mkdir(parents=True)
        handlers = [TrainingStatistics(), History(history), TrainingCurves(history, folder)]
        make_run("mean_teacher", kind=kind, epochs=2, folder=kind, handlers=handlers).train()
        assert sorted(file.name for file in folder.iterdir()) == expected
        assert all(width(file) > 0 for file in folder.iterdir())


def test_curves_without_a_history_are_a_warning(tmp_path: Path, caplog: Any) -> None:
    TrainingCurves(tmp_path / "history.csv", tmp_path).draw()
    assert "no curves of" in caplog.text


@pytest.mark.parametrize("with_regions", [True, False])
def test_of_volumes_slices_with_annotation_are_drawn(with_regions: bool, drawn: list, tmp_path: Path) -> None:
    torch.manual_seed(0)
    volumes = torch.rand(2, 1, 8, 9, 7)
    volumes[0, ..., [0, 2, 5, 6]] = 0  # slices 1, 3 and 4 are annotated
    volumes[1] = 0
    regions = torch.randint(0, 4, volumes.shape, dtype=torch.uint8)
    loss = SimpleNamespace(regions=regions) if with_regions else SimpleNamespace()
    output = [{"image": v, "label": (v > 0.5).float(), "pred": torch.cat([1 - v, v])} for v in volumes]
    method = SimpleNamespace(labeled_losses={"network": loss})
    state = SimpleNamespace(epoch=7, max_epochs=9, output=output)
    TrainingPictures(tmp_path / "new" / "folder", slices=2)(SimpleNamespace(state=state, unwrapped_method=method))
    assert width(tmp_path / "new" / "folder" / "epoch_0007.png") > 0
    [(images, truths, predictions, region_maps, keywords)] = drawn
    expected = [(0, 1), (0, 4), (1, 1), (1, 5)]
    assert len(images) == len(expected)
    for row, (i, slice_) in enumerate(expected):
        assert np.array_equal(images[row], volumes[i, 0, ..., slice_].numpy())
        assert np.array_equal(truths[row], (volumes[i, 0, ..., slice_] > 0.5).numpy())
        assert np.array_equal(predictions[row], (volumes[i, 0, ..., slice_] > 0.5).numpy())
        if with_regions:
            assert np.array_equal(region_maps[row], regions[i, 0, ..., slice_].numpy())
    assert keywords["rows"] == [f"slice {slice_ + 1} of 7" for _, slice_ in expected]
    assert (region_maps is not None) == with_regions


def test_mixed_precision_predictions_can_be_drawn(make_run: Callable, tmp_path: Path) -> None:
    make_run("mean_teacher", epochs=1, amp=True, handlers=[TrainingPictures(tmp_path / "pictures")]).train()
    assert width(tmp_path / "pictures" / "epoch_0001.png") > 0
