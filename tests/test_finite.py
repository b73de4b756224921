# SPDX-License-Identifier: Apache-2.0
"""What is not finite is found by name."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.finite import NotFiniteError, first_not_finite, refuse_not_finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_value_among_many_is_found(value: float, dtype: torch.dtype) -> None:
    weight = torch.zeros(3, 4, dtype=dtype)
    weight[2, 1] = value
    state = {"count": torch.tensor(3), "epoch": 2, "bias": torch.full((2,), 1e4, dtype=dtype), "weight": weight}
    assert first_not_finite(state) == "weight"
    with pytest.raises(NotFiniteError, match=r"iteration 5: .*\(weight\)"):
        refuse_not_finite(state, "iteration 5")


def test_the_largest_numbers_are_finite() -> None:
    assert first_not_finite({"weight": torch.full((9,), torch.finfo(torch.float32).max)}) is None
    assert first_not_finite({}) is None
