# SPDX-License-Identifier: Apache-2.0
"""The perturbations of cross-consistency training against their formulas (Ouali et al., CVPR 2020, Sec. 3.3)."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.methods.perturbations import (
    PERTURBATIONS,
    feature_dropout,
    feature_noise,
    most_active_dropout,
)

SHAPES = [(3, 4, 6, 5), (2, 4, 4, 3, 5)]


@pytest.mark.parametrize("name", list(PERTURBATIONS))
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_and_gradient_pass_through_and_the_input_stays(name: str, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, requires_grad=True)
    before = x.detach().clone()
    perturbed = PERTURBATIONS[name](x)
    assert perturbed.shape == x.shape
    perturbed.sum().backward()
    # each one is a product, so the gradient is the factor
    torch.testing.assert_close(x.grad * before, perturbed.detach())
    assert x.detach().equal(before)


@pytest.mark.parametrize("name", list(PERTURBATIONS))
def test_every_call_draws_anew(name: str) -> None:
    x = torch.rand(2, 4, 16, 16)
    assert not PERTURBATIONS[name](x).equal(PERTURBATIONS[name](x))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("arguments", [{}, {"limit": 0.05}])
def test_noise_is_a_uniform_factor_shared_by_the_batch(shape: tuple[int, ...], arguments: dict[str, float]) -> None:
    limit = arguments.get("limit", 0.3)
    factor = feature_noise(torch.ones(shape).double(), **arguments) - 1
    for sample in factor:
        assert sample.equal(factor[0])
    values = factor[0].flatten()
    assert len(values.unique()) == len(values)  # one draw for each channel and voxel
    assert float(values.abs().max()) <= limit
    x = torch.randn(shape).double()
    torch.manual_seed(1)
    noise = feature_noise(torch.ones(shape).double(), **arguments)
    torch.manual_seed(1)
    torch.testing.assert_close(feature_noise(x, **arguments), x * noise)


def test_noise_fills_its_range_evenly() -> None:
    u = feature_noise(torch.ones(1, 8, 64, 64)) - 1
    assert float(u.min()) == pytest.approx(-0.3, abs=1e-3)
    assert float(u.max()) == pytest.approx(0.3, abs=1e-3)
    assert float(u.std()) == pytest.approx(0.3 / 3**0.5, rel=0.01)


def test_dropout_drops_single_values_and_scales_the_others() -> None:
    dropped = feature_dropout(torch.ones(2, 8, 64, 64))
    zeros = dropped == 0
    assert dropped[~zeros].unique().tolist() == pytest.approx([1 / 0.7])
    assert float(zeros.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert not zeros[0].equal(zeros[1])
    assert not zeros[0, 0].equal(zeros[0, 1])


@pytest.mark.parametrize("share", [0.7, 0.8])
def test_most_active_voxels_of_each_image_are_dropped(share: float) -> None:
    x = torch.rand(3, 4, 6, 5)
    x[1] *= 100  # the maximum is that of the image, not of the batch
    x[2] -= 0.2
    perturbed = most_active_dropout(x, low=share, high=share)
    for image, result in zip(x, perturbed, strict=True):
        mean = [[sum(float(image[c, i, j]) for c in range(4)) / 4 for j in range(5)] for i in range(6)]
        peak = max(max(line) for line in mean)
        dropped = 0
        for i in range(6):
            for j in range(5):
                keep = mean[i][j] < share * peak
                dropped += not keep
                for c in range(4):
                    assert float(result[c, i, j]) == (float(image[c, i, j]) if keep else 0.0)
        assert 0 < dropped < 30


def test_share_of_the_most_active_is_drawn_between_its_bounds_for_the_whole_batch() -> None:
    ramp = torch.linspace(0, 1, 1001).view(1, 1, -1).repeat(2, 1, 1)
    shares = []
    for _ in range(200):
        kept = most_active_dropout(ramp) > 0
        assert kept[0].equal(kept[1])
        shares.append(float((ramp[0] * kept[0]).max()))
    assert 0.698 <= min(shares) < 0.72
    assert 0.88 < max(shares) <= 0.9


def test_voxel_at_the_share_itself_is_dropped() -> None:
    x = torch.tensor([[[1.0, 0.5, 0.25]]])
    assert most_active_dropout(x, low=0.5, high=0.5).tolist() == [[[0.0, 0.0, 0.25]]]
