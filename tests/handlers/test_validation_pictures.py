# SPDX-License-Identifier: Apache-2.0
"""Pictures of validation cases lie over their annotations and never end a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.transforms import Resize

from metassl_monai.handlers import ValidationPictures, validation_pictures

LABELS = {"0": "background", "1": "heart"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    original = validation_pictures.methods_figure

    def record(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(validation_pictures, "methods_figure", record)
    return calls


def case(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A case whose network sees it at half of its size; its image is its annotation."""
    label = torch.zeros(1, 16, 12, 9)
    label[:, 4:12, 4:8, 2:7] = 1
    affine = torch.diag(torch.tensor([-1.5, 1.5, 8.0, 1.0]))
    truth = MetaTensor(label, affine=affine)
    image = Resize((8, 6, 9), mode="nearest")(truth)
    return {"image": image, "case": name}, {"label": truth, "pred": MetaTensor(1 - label, affine=affine)}


def validate(pictures: ValidationPictures, epoch: int, names: str = "abc", last: int = 9) -> None:
    pictures.begin(SimpleNamespace(state=SimpleNamespace(epoch=epoch, max_epochs=last)))  # type: ignore[arg-type]
    for name in names:
        item, output = case(name)
        pictures.collect(SimpleNamespace(state=SimpleNamespace(epoch=epoch, batch=[item], output=[output])))
    pictures.draw(SimpleNamespace(state=SimpleNamespace(epoch=epoch)))  # type: ignore[arg-type]


def make(folder: Path, **arguments: Any) -> ValidationPictures:
    return ValidationPictures(folder, Engine(lambda engine, batch: None), LABELS, **arguments)


def test_images_lie_over_their_annotations_in_several_slices(drawn: list[Any], tmp_path: Path) -> None:
    validate(make(tmp_path), 1)
    ((images, maps, names, title, labels),) = drawn
    assert names == tuple(f"{c}\nslice {z} of 9" for c in "ab" for z in (3, 5, 7))
    assert list(maps) == ["annotation", "prediction"]
    assert (title, labels) == ("validation cases, epoch 1", LABELS)
    for image, truth, prediction in zip(images, maps["annotation"], maps["prediction"], strict=True):
        assert image.shape == truth.shape == (16, 12)
        assert ((image > 0.5) == truth).mean() > 0.9
        assert np.array_equal(truth, 1 - prediction)
    assert [file.name for file in tmp_path.iterdir()] == ["validation_0001.png"]


def test_epochs_follow_the_interval_and_the_last_one_is_drawn(tmp_path: Path) -> None:
    pictures = make(tmp_path, interval=2, cases=1, slices=1)
    for epoch in (1, 2, 3):
        validate(pictures, epoch, last=3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["validation_0002.png", "validation_0003.png"]


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").write_text("")
    validate(make(tmp_path / "file"), 3)
    assert "no picture of the validation of epoch 3" in caplog.text
