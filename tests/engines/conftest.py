# SPDX-License-Identifier: Apache-2.0
"""Tiny methods, data and trainers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.data import DataLoader, Dataset
from torch import Tensor, nn

from metassl_monai.engines import PairedDataLoader, SemiSupervisedTrainer
from metassl_monai.losses import metassl_losses
from metassl_monai.methods import CrossPseudoSupervision, MeanTeacher, Method, Supervised

CLASSES = 3


class TinyNetwork(nn.Module):
    """Not a bare ``Sequential``, which torch does not compile."""

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        self.last = nn.Conv2d(4, CLASSES, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.leaky_relu(self.norm(self.first(x))))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    def make(seed: int, batch_norm: bool = True) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return TinyNetwork(batch_norm)

    return make


@pytest.fixture
def make_method(make_network: Callable) -> Callable[..., Method]:
    def make(
        name: str = "mean_teacher",
        losses: tuple[nn.Module, nn.Module] | None = None,
        ramp: Callable[[int], float] = lambda step: 0.5,
        batch_norm: bool = True,
    ) -> Method:
        network = make_network(0, batch_norm)
        arguments: dict[str, Any] = {}
        if name == "cps":
            arguments["second_network"] = make_network(1, batch_norm)
        if name == "mean_teacher":
            arguments["noise"] = 0.0
        kinds = {"supervised": Supervised, "mean_teacher": MeanTeacher, "cps": CrossPseudoSupervision}
        return kinds[name](network, *(losses or metassl_losses(CLASSES)), ramp=ramp, **arguments)

    return make


@pytest.fixture
def items() -> Callable[..., list[dict[str, Any]]]:
    """Images and labels by number; no two alike."""

    def make(count: int, labeled: bool, seed: int = 0) -> list[dict[str, Any]]:
        generator = torch.Generator().manual_seed(seed + labeled)
        images = torch.randn(count, 1, 8, 8, generator=generator)
        labels = torch.randint(0, CLASSES, (count, 1, 8, 8), generator=generator).float()
        return [
            {"image": image, "case": f"case{i}", **({"label": label} if labeled else {})}
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]

    return make


@pytest.fixture
def make_loader(items: Callable) -> Callable[..., PairedDataLoader]:
    """Batches in a fixed order: two labeled and three unlabeled images a step unless told."""

    def make(length: int = 3, labeled: int = 2, unlabeled: int = 3) -> PairedDataLoader:
        return PairedDataLoader(
            DataLoader(Dataset(items(length * labeled, True)), batch_size=labeled),
            DataLoader(Dataset(items(length * unlabeled, False)), batch_size=unlabeled),
            length,
        )

    return make


@pytest.fixture
def make_trainer(make_loader: Callable) -> Callable[..., SemiSupervisedTrainer]:
    def make(method: Method, max_epochs: int = 1, loader: Any = None, lr: float = 0.1, **arguments: Any) -> Any:
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr)
        return SemiSupervisedTrainer(
            device="cpu",
            max_epochs=max_epochs,
            train_data_loader=make_loader() if loader is None else loader,
            method=method,
            optimizer=arguments.pop("optimizer", optimizer),
            **arguments,
        )

    return make


@pytest.fixture
def assert_same_state() -> Callable[..., None]:
    """Compare two state dicts; bit for bit unless a tolerance is given."""

    def compare(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 0.0) -> None:
        assert list(first) == list(second)
        for name, value in first.items():
            error = (value.double() - second[name].double()).abs().max()
            assert error <= tolerance, f"{name} differs by {error}"

    return compare
