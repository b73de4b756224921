# SPDX-License-Identifier: Apache-2.0
"""What is FixMatch's own: two views, and a confidence below which its own loss is silent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from metassl_monai.losses import PseudoLabelLoss, metassl_losses
from metassl_monai.methods import FixMatch


@pytest.mark.parametrize(
    ("name", "missing", "named"),
    [
        ("FixMatch", ("labeled", "unlabeled"), "labeled"),
        ("FixMatch", ("labeled",), "labeled"),
        ("FixMatch", ("unlabeled",), "unlabeled"),
        ("FixMatch-weak", ("unlabeled",), "unlabeled"),
    ],
)
def test_batches_without_strong_views_are_refused_with_the_remedy(
    name: str, missing: tuple[str, ...], named: str, row_of: Callable, make_method: Callable, batch: Any
) -> None:
    for stream in missing:
        del batch[stream]["image_strong"]
    with pytest.raises(ValueError, match=rf"^{named} batches have no image_strong: add WeakStrongViewsd"):
        make_method(row_of(name))(batch, 0)


def test_training_on_weak_views_needs_no_strong_view_of_labeled_images(
    row_of: Callable, make_method: Callable, batch: Any
) -> None:
    del batch["labeled"]["image_strong"]
    terms, _ = make_method(row_of("FixMatch-weak"))(batch, 0)
    assert set(terms) == {"labeled/weak", "unlabeled/strong"}


def test_both_views_of_labeled_images_are_the_default() -> None:
    method = FixMatch(nn.Conv2d(1, 2, 1), *metassl_losses(2), ramp=lambda step: 1.0)
    assert method.labeled_views == "both"


def test_unknown_views_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"labeled_views='strong' is unknown: choose 'both' or 'weak'"):
        FixMatch(nn.Conv2d(1, 2, 1), *metassl_losses(2), ramp=lambda step: 1.0, labeled_views="strong")


@pytest.mark.parametrize(("threshold", "counted"), [(0.5, 2), (0.51, 1), (0.0, 4)])
def test_own_loss_keeps_what_is_as_sure_as_the_threshold_and_averages_over_all_voxels(
    threshold: float, counted: int
) -> None:
    far = 1000.0
    # probabilities 1, exactly 1/2, and twice 1/3
    weak = torch.tensor([[far, 0, 0], [far, far, 0], [0, 0, 0], [0, 0, 0]]).T[None]
    loss = PseudoLabelLoss(threshold)(torch.zeros(1, 3, 4), weak)
    assert float(loss) == pytest.approx(counted * math.log(3) / 4)
