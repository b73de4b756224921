# SPDX-License-Identifier: Apache-2.0
"""The clean-up of pseudo-labels."""

from __future__ import annotations

from collections import deque
from itertools import product

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from metassl_monai.methods.components import largest_components


def sizes(label: Tensor, c: int) -> list[int]:
    """Voxels of each connected region of class ``c``, by flood fill; diagonal neighbors are connected."""
    left = {tuple(index) for index in (label == c).nonzero().tolist()}
    found = []
    while left:
        queue, count = deque([left.pop()]), 0
        while queue:
            voxel = queue.popleft()
            count += 1
            for shift in product((-1, 0, 1), repeat=label.ndim):
                neighbor = tuple(a + b for a, b in zip(voxel, shift, strict=True))
                if neighbor in left:
                    left.remove(neighbor)
                    queue.append(neighbor)
        found.append(count)
    return found


@pytest.mark.parametrize("spatial", [(12, 10), (5, 6, 7)])
@pytest.mark.parametrize("seed", range(3))
def test_one_region_a_class_and_sample_is_left_and_it_is_the_largest(spatial: tuple[int, ...], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # mostly background, so that the classes fall apart
    label = (torch.randint(0, 9, (3, 1, *spatial), generator=generator) - 6).clamp_min(0)
    cleaned = largest_components(label, num_classes=3)
    assert cleaned.shape == label.shape
    assert ((cleaned == label) | (cleaned == 0)).all()
    for before, after in zip(label[:, 0], cleaned[:, 0], strict=True):
        for c in (1, 2):
            regions = sizes(before, c)
            assert len(regions) > 1
            assert sizes(after, c) == [max(regions)]


def test_diagonal_neighbors_are_connected() -> None:
    label = torch.eye(4).long()[None, None]
    assert largest_components(label, 2).equal(label)


def test_background_is_no_class_to_clean() -> None:
    label = torch.tensor([[[[0, 1, 0, 0]]]])
    assert largest_components(label, 2).equal(label)


def test_labels_without_foreground_pass() -> None:
    label = torch.zeros(2, 1, 4, 4).long()
    assert largest_components(label, 3).equal(label)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("meta", [False, True])
def test_the_label_given_stays_and_the_result_is_like_it(dtype: torch.dtype, meta: bool) -> None:
    label = torch.tensor([[[[1, 1, 0, 1]]]], dtype=dtype)
    given = MetaTensor(label.clone()) if meta else label.clone()
    cleaned = largest_components(given, 2)
    assert torch.equal(torch.as_tensor(given), label)
    assert cleaned.dtype == dtype
    assert type(cleaned) is type(given)
    assert cleaned.tolist() == [[[[1, 1, 0, 0]]]]
