# SPDX-License-Identifier: Apache-2.0
"""What is copy-paste pretraining's own: mixtures of labeled images, whose parts are judged apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from metassl_monai.methods import CopyPastePretraining


@pytest.fixture
def make_stage(row_of: Callable, make_method: Callable) -> Callable[..., CopyPastePretraining]:
    return lambda **kwargs: make_method(row_of("CopyPastePretraining"), **kwargs)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_target_of_each_voxel_is_that_of_its_image(number: int, make_stage: Any, make_batch: Any) -> None:
    batch = make_batch(labeled=number)
    label = batch["labeled"]["label"]
    own, following = sorted(make_stage().pairs(batch, 0).pairs, key=lambda pair: pair.name != "own")
    assert (own.name, following.name) == ("own", "next")
    assert own.mask.logical_xor(following.mask).all()
    assert own.target is following.target
    for i in range(number):
        inside = own.mask[i]
        assert own.target[i][inside].equal(label[i][inside])
        assert own.target[i][~inside].equal(label[(i + 1) % number][~inside])


def test_the_first_half_has_a_box_of_the_next_image_and_the_other_of_its_own(make_stage: Any, make_batch: Any) -> None:
    pairs = {pair.name: pair for pair in make_stage().pairs(make_batch(labeled=3), 0).pairs}
    assert pairs["next"].mask.sum(dim=(1, 2, 3)).tolist() == [25, 25, 64 - 25]
    assert pairs["own"].mask[2].equal(pairs["next"].mask[0])


def test_each_prediction_is_its_own_reference_and_both_parts_weigh_alike(make_stage: Any, batch: Any) -> None:
    for pair in make_stage().pairs(batch, 0).pairs:
        assert pair.reference is pair.prediction
        assert pair.label is None
        assert pair.weight == 1.0


def test_mixtures_may_be_judged_as_a_whole(make_stage: Any, batch: Any) -> None:
    step = make_stage(apart=False).pairs(batch, 0)
    (pair,) = step.pairs
    assert (pair.name, pair.mask, pair.weight) == ("own", None, 1.0)
    label, inside = batch["labeled"]["label"], make_stage(apart=False)
    assert pair.prediction is step.prediction
    assert pair.reference is step.prediction
    assert ((pair.target == label) | (pair.target == label.roll(-1, dims=0))).all()
    assert set(inside(batch, 0)[0]) == {"labeled/own"}


def test_unlabeled_images_are_not_touched(make_stage: Any, batch: Any) -> None:
    del batch["unlabeled"]
    terms, _ = make_stage()(batch, 0)
    assert set(terms) == {"labeled/own", "labeled/next"}


def test_weights_go_on_into_the_second_stage(
    make_stage: Any, row_of: Callable, make_method: Callable, batch: Any
) -> None:
    stage = make_stage()
    second = make_method(row_of("BidirectionalCopyPaste"))
    second.network.load_state_dict(stage.inference_network.state_dict())
    images = torch.ones_like(batch["labeled"]["image"])
    torch.testing.assert_close(second.network(images), stage.network(images))
