# SPDX-License-Identifier: Apache-2.0
"""Every method as one row: a new method is one more :class:`Row`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from metassl_monai.losses import CrossEntropyDiceLoss, PseudoLabelLoss, SoftmaxMSELoss, metassl_losses
from metassl_monai.methods import CrossPseudoSupervision, MeanTeacher, Method, Supervised

CLASSES = 3
LABELED, UNLABELED = 2, 3


@dataclass(frozen=True)
class Row:
    """A method with what the uniform tests need to know of it."""

    method: type[Method]
    own_unlabeled: type[nn.Module]
    learns: dict[str, set[str]]
    """By loss term, the children of the method that it trains, and no others."""
    further_networks: tuple[str, ...] = ()
    """Arguments that are networks, beside ``network``."""
    teachers: tuple[str, ...] = ()
    """Children that follow by moving average."""
    sees_unlabeled: bool = True
    """Whether the unlabeled images are in the batch of the labeled ones."""
    without_noise: dict[str, Any] = field(default_factory=dict)
    """Arguments that take the randomness away."""


ROWS = [
    Row(Supervised, PseudoLabelLoss, {"labeled/network": {"network"}}, sees_unlabeled=False),
    Row(
        MeanTeacher,
        SoftmaxMSELoss,
        {"labeled/network": {"network"}, "unlabeled/network": {"network"}},
        teachers=("teacher",),
        without_noise={"noise": 0.0},
    ),
    Row(
        CrossPseudoSupervision,
        PseudoLabelLoss,
        {
            "labeled/network": {"network"},
            "unlabeled/network": {"network"},
            "labeled/second_network": {"second_network"},
            "unlabeled/second_network": {"second_network"},
        },
        further_networks=("second_network",),
    ),
]


@pytest.fixture(params=ROWS, ids=lambda row: row.method.__name__)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture(params=[row for row in ROWS if row.teachers], ids=lambda row: row.method.__name__)
def teacher_row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture(params=["metassl", "own"])
def losses(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_network() -> Callable[..., nn.Sequential]:
    """A small network; every call starts from other weights."""
    seeds = itertools.count()

    def make(batch_norm: bool = True) -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(next(seeds))
            norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
            # a bias before batch norm has no effect
            first = nn.Conv2d(1, 4, 3, padding=1, bias=not batch_norm)
            return nn.Sequential(first, norm, nn.Tanh(), nn.Conv2d(4, CLASSES, 3, padding=1))

    return make


@pytest.fixture
def make_losses() -> Callable[[Row, str], tuple[nn.Module, nn.Module]]:
    def make(row: Row, kind: str) -> tuple[nn.Module, nn.Module]:
        return metassl_losses(CLASSES) if kind == "metassl" else (CrossEntropyDiceLoss(), row.own_unlabeled())

    return make


@pytest.fixture
def make_method(make_network: Callable, make_losses: Callable) -> Callable[..., Method]:
    """Build the method of a row; the losses are those of its kind unless given."""

    def make(
        row: Row,
        kind: str = "metassl",
        given: tuple[Any, Any] | None = None,
        ramp: Callable[[int], float] = lambda step: 0.5,
        batch_norm: bool = True,
        **arguments: Any,
    ) -> Method:
        networks = {name: make_network(batch_norm) for name in ("network", *row.further_networks)}
        labeled_loss, unlabeled_loss = given or make_losses(row, kind)
        return row.method(
            labeled_loss=labeled_loss, unlabeled_loss=unlabeled_loss, ramp=ramp, **networks, **arguments
        ).train()

    return make


@pytest.fixture
def batch() -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return {
        "labeled": {
            "image": torch.randn(LABELED, 1, 8, 8, generator=generator),
            "label": torch.randint(0, CLASSES, (LABELED, 1, 8, 8), generator=generator).float(),
        },
        "unlabeled": {"image": torch.randn(UNLABELED, 1, 8, 8, generator=generator)},
    }


@pytest.fixture
def shake() -> Callable[..., None]:
    """Move every learning parameter and every floating buffer of a module at random."""

    def shake(module: nn.Module, scale: float = 1.0) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(scale * torch.randn_like(parameter))
            for buffer in module.buffers():
                buffer.add_(torch.rand_like(buffer) if buffer.is_floating_point() else 1)

    return shake


@pytest.fixture
def snapshot() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    return lambda module: copy.deepcopy(module.state_dict())
