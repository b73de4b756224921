# SPDX-License-Identifier: Apache-2.0
"""Two networks that answer with the mean of their probabilities."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from metassl_monai.networks import MeanOfTwo, UNet2D


@pytest.mark.parametrize(("convolution", "spatial"), [(nn.Conv2d, (5, 6)), (nn.Conv3d, (3, 4, 5))])
def test_probabilities_are_the_mean_of_both(convolution, spatial):
    torch.manual_seed(0)
    first, second = (convolution(2, 4, 1).double() for _ in range(2))
    x = torch.randn(3, 2, *spatial, dtype=torch.float64)
    both = MeanOfTwo(first, second)(x)
    mean = torch.stack([first(x).softmax(1), second(x).softmax(1)]).mean(0)
    torch.testing.assert_close(both.softmax(1), mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(both.exp(), mean, rtol=1e-12, atol=0)
    logits = (first(x) + second(x)) / 2
    assert not both.softmax(1).allclose(logits.softmax(1))


def test_extreme_logits_stay_finite():
    class Fixed(nn.Module):
        def __init__(self, *logits):
            super().__init__()
            self.logits = torch.tensor(logits).view(1, -1, 1, 1)

        def forward(self, x):
            return self.logits.expand(len(x), -1, 1, 1)

    both = MeanOfTwo(Fixed(1e4, 0.0, -1e4), Fixed(-1e4, 0.0, 1e4))(torch.zeros(1, 1, 1, 1))
    assert both.isfinite().all()
    torch.testing.assert_close(both.softmax(1).flatten(), torch.tensor([0.5, 0.0, 0.5]))


def test_state_dict_holds_both_and_fits_into_another():
    first, second, third, fourth = (UNet2D(1, 2, features=(4, 8), dropout=(0.0, 0.0)).eval() for _ in range(4))
    one, other = MeanOfTwo(first, second), MeanOfTwo(third, fourth)
    assert set(one.state_dict()) == {f"{name}.{key}" for name in ("first", "second") for key in first.state_dict()}
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert one(x).equal(other(x))


def test_copies_script_and_compile_graph():
    torch._dynamo.reset()  # of what other tests have compiled
    torch.manual_seed(0)
    network = MeanOfTwo(*(UNet2D(1, 2, features=(4, 8), dropout=(0.0, 0.0)) for _ in range(2))).eval()
    x = torch.randn(1, 1, 8, 8)
    expected = network(x)
    torch.testing.assert_close(copy.deepcopy(network)(x), expected)
    torch.testing.assert_close(torch.jit.script(network)(x), expected)
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), expected)
