# SPDX-License-Identifier: Apache-2.0
"""Samples of several pairs are shown as one."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.handlers.judged_pairs import JudgedPair, samples_of


def pair(first: int, images: int, with_regions: bool = True) -> JudgedPair:
    values = torch.arange(first, first + images).view(-1, 1, 1, 1)
    return JudgedPair(values, values + 10, values + 20, values > 0, values + 30 if with_regions else None)


@pytest.mark.parametrize(
    ("pairs", "count", "expected"),
    [
        ([(0, 5)], 3, [0, 1, 2]),
        ([(0, 2)], 3, [0, 1]),
        ([(0, 2), (2, 2)], 3, [0, 1, 2]),
        ([(0, 3), (3, 1), (4, 2)], 3, [0, 3, 4]),
    ],
)
def test_samples_come_from_all_pairs(pairs: list[tuple[int, int]], count: int, expected: list[int]) -> None:
    chosen = samples_of([pair(*it) for it in pairs], count)
    assert chosen.image.flatten().tolist() == expected
    assert chosen.prediction.flatten().tolist() == [i + 20 for i in expected]
    assert chosen.regions.flatten().tolist() == [i + 30 for i in expected]


def test_there_are_no_regions_where_one_pair_has_none() -> None:
    assert samples_of([pair(0, 2), pair(2, 2, with_regions=False)], 3).regions is None
