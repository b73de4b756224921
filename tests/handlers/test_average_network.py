# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import torch
from ignite.engine import Engine
from torch import nn

from metassl_monai.handlers import AverageNetwork


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1))


def train(network, handler, iterations):
    optimizer, generator = torch.optim.SGD(network.parameters(), lr=0.1), torch.Generator().manual_seed(1)
    seen = []

    def step(engine, batch):
        optimizer.zero_grad()
        network(torch.randn(4, 1, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()
        seen.append({name: value.clone().double() for name, value in network.state_dict().items()})

    engine = Engine(step)
    handler.attach(engine)
    engine.run(range(iterations))
    return seen


def test_it_is_the_weighted_sum_of_all_iterations(tmp_path):
    """Iteration t has the weight (1 - d) d^(T - t); the first ones, whose plain mean it is, share one equally."""
    decay, total, warm = 0.8, 12, 5  # 1 / 5 = 1 - 0.8
    network = make_network()
    seen = train(network, AverageNetwork(tmp_path / "ema.pt", network, copy.deepcopy(network), decay), total)
    weights = [decay ** (total - warm) / warm] * warm
    weights += [(1 - decay) * decay ** (total - t) for t in range(warm + 1, total + 1)]
    assert abs(sum(weights) - 1) < 1e-12
    saved = torch.load(tmp_path / "ema.pt", weights_only=True)
    for name, value in saved.items():
        if value.is_floating_point():
            expected = sum(weight * state[name] for weight, state in zip(weights, seen, strict=True))
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7, msg=name)
        else:
            assert value == total


def test_the_training_is_the_same_with_and_without_it(tmp_path):
    one, other = make_network(), make_network()
    train(one, AverageNetwork(tmp_path / "ema.pt", one, copy.deepcopy(one)), 4)
    still = AverageNetwork(tmp_path / "none.pt", make_network(), make_network())
    train(other, still, 4)
    assert all(value.equal(other.state_dict()[name]) for name, value in one.state_dict().items())


def test_it_begins_with_the_weights_of_the_start_and_not_of_its_making(tmp_path):
    network = make_network()
    handler = AverageNetwork(tmp_path / "ema.pt", network, copy.deepcopy(network), decay=0.999)
    with torch.no_grad():
        network[0].weight += 5  # a first stage
    handler.start()
    assert handler.average[0].weight.equal(network[0].weight)
