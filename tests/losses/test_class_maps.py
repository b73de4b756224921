# SPDX-License-Identifier: Apache-2.0
"""Maps of classes equal the one line that each stands for."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.losses.class_maps import class_sums, histogram, likeliest_class


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 2, 5), (3, 4, 9, 7), (1, 14, 3, 4, 5), (1, 300, 4, 4)])
def test_the_likeliest_class_is_the_first_maximum(shape, dtype):
    """Coarse half-precision logits have many ties."""
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(2).to(dtype)
    for layout in (logits, logits.transpose(-1, 1).contiguous().transpose(-1, 1)):
        assert torch.equal(likeliest_class(layout), layout.max(dim=1, keepdim=True).indices)


def test_ties_and_infinities_are_those_of_max():
    rows = [[0, 0, 0], [1, 2, 2], [-torch.inf] * 3, [torch.inf, 0, torch.inf], [-1, -torch.inf, -1]]
    logits = torch.tensor(rows).T.reshape(1, 3, 5)
    assert likeliest_class(logits).flatten().tolist() == [0, 1, 0, 0, 0]


def test_not_a_number_gives_some_class():
    assert 0 <= likeliest_class(torch.full((1, 3, 1), torch.nan)).item() < 3


def test_histogram_counts_every_code():
    codes = torch.randint(0, 7, (3, 1, 5, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert histogram(codes, 9).tolist() == [(codes == code).sum().item() for code in range(9)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_of_classes_are_exact_to_rounding(dtype):
    random = torch.Generator().manual_seed(0)
    values = torch.rand(2, 1, 600, 600, generator=random, dtype=torch.float64)
    label = torch.randint(0, 4, values.shape, generator=random) % 3
    expected = torch.stack([values[label == c].sum() for c in range(4)])
    found = class_sums(values.to(dtype), label, 4)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=2e-7 if dtype == torch.float32 else 1e-13, atol=0)
