# SPDX-License-Identifier: Apache-2.0
"""Unlabeled images are drawn as the method judges them, and the training does not notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metassl_monai.handlers import TrainingPictures, region_pictures


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the picture of each epoch was asked to show; the pictures over the training are left out."""
    calls: list[tuple[Any, ...]] = []
    original = region_pictures.quadripartition_figure

    def record(*arguments: Any, **keywords: Any) -> Any:
        if "epoch" in arguments[6]:
            calls.append(arguments)
        return original(*arguments, **keywords)

    monkeypatch.setattr(region_pictures, "quadripartition_figure", record)
    return calls


@pytest.mark.parametrize("name", ["mean_teacher", "cps"])
def test_the_training_is_the_same_with_and_without_them(name: str, make_run: Callable, tmp_path: Path) -> None:
    seen = make_run(name, epochs=2, folder="a", handlers=[TrainingPictures(tmp_path / "pictures")]).train()
    blind = make_run(name, epochs=2, folder="b").train()
    states = [run.method.state_dict() for run in (seen, blind)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert (tmp_path / "pictures" / "unlabeled_0002.png").is_file()


def test_the_images_of_the_first_batch_are_judged_by_the_method_as_it_is(
    make_run: Callable, steady: Callable, drawn: list, tmp_path: Path
) -> None:
    run = make_run("cps", epochs=2, handlers=[TrainingPictures(tmp_path)])
    steady(run.method)
    kept = run.train().trainer
    assert len(drawn) == 2
    (first, *_), (second, truths, references, predictions, regions, *_) = drawn
    assert truths is None
    assert np.array_equal(first, second)  # the same images in both epochs, other batches in between
    assert not np.array_equal(second[0], kept.state.output[0]["image"][0])
    images = torch.as_tensor(np.array(second))[:, None]
    labels = [net(images).argmax(dim=1).numpy() for net in (run.method.network, run.method.second_network)]
    assert np.array_equal(predictions, labels[0])
    assert np.array_equal(references, labels[1])
    unanimous = np.array(regions) < 2
    assert np.array_equal(unanimous, labels[0] == labels[1])


def test_a_method_without_unlabeled_pairs_has_none(make_run: Callable, drawn: list, tmp_path: Path) -> None:
    make_run("supervised", epochs=1, handlers=[TrainingPictures(tmp_path)]).train()
    assert drawn == []
