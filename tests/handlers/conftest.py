# SPDX-License-Identifier: Apache-2.0
"""A whole small run: shuffling, random transforms, dropout, batch norm, validation, schedule, checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.handlers import LrScheduleHandler, MeanDice, ValidationHandler, from_engine
from monai.inferers import SimpleInferer
from monai.transforms import AsDiscreted, Compose, RandFlipd, RandGaussianNoised, RandRotate90d
from torch import nn

from metassl_monai.engines import PairedDataLoader, SemiSupervisedTrainer
from metassl_monai.handlers import BestNetwork, SeedEachEpoch, TrainingCheckpoint
from metassl_monai.losses import CrossEntropyDiceLoss, PseudoLabelLoss, metassl_losses
from metassl_monai.methods import CrossPseudoSupervision, GaussianRamp, MeanTeacher, Method, Supervised
from metassl_monai.networks import UNet2D

CLASSES = 3
EPOCHS, LENGTH = 4, 3
METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "cps": CrossPseudoSupervision,
}


def samples(count: int, labeled: bool, spatial: Sequence[int] = (16, 16)) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(count + labeled)
    found = []
    for _ in range(count):
        label = torch.randint(0, CLASSES, (1, *spatial), generator=generator).float()
        image = label + 0.3 * torch.randn(1, *spatial, generator=generator)
        found.append({"image": image, **({"label": label} if labeled else {})})
    return found


class ScriptedMetric:
    """A key metric whose values are given by epoch."""

    def __init__(self, values: Mapping[int, Any]) -> None:
        self.values = values

    def attach(self, engine: Engine, name: str) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write, name)

    def write(self, engine: Engine, name: str) -> None:
        engine.state.metrics[name] = self.values[engine.state.epoch]


@dataclass
class Run:
    """What belongs to one run."""

    trainer: SemiSupervisedTrainer
    evaluator: SupervisedEvaluator
    method: Method
    scheduler: Any
    folder: Path

    def train(self) -> Run:
        self.trainer.run()
        return self

    def state(self) -> dict[str, Any]:
        """All that a resumed run must share with the uninterrupted one, bit for bit."""
        trainer, best = self.trainer.state, self.evaluator.state
        model = self.folder / "model.pt"
        return {
            "method": self.method.state_dict(),
            "optimizer": self.trainer.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.trainer.scaler.state_dict(),
            "best": (float(best.best_metric), best.best_metric_epoch),
            "validation": {name: float(value) for name, value in best.metrics.items()},
            "position": (trainer.epoch, trainer.iteration),
            "losses": trainer.losses,
            "prediction": [item["pred"] for item in trainer.output],
            "model.pt": torch.load(model, weights_only=True) if model.exists() else None,
        }


def build_network(seed: int) -> UNet2D:
    torch.manual_seed(seed)
    return UNet2D(1, CLASSES, features=(4, 8), dropout=(0.2, 0.3))


def build_method(name: str, kind: str, seed: int) -> Method:
    losses = metassl_losses(CLASSES) if kind == "metassl" else (CrossEntropyDiceLoss(), PseudoLabelLoss())
    further = {"second_network": build_network(seed + 1)} if name == "cps" else {}
    return METHODS[name](build_network(seed), *losses, ramp=GaussianRamp(EPOCHS * LENGTH), **further)


def build_loader(workers: int) -> PairedDataLoader:
    keys = ["image", "label"]
    loaders = []
    for labeled in (True, False):
        transform = Compose(
            [
                RandFlipd(keys, prob=0.5, spatial_axis=0, allow_missing_keys=True),
                RandRotate90d(keys, prob=0.5, allow_missing_keys=True),
                RandGaussianNoised("image", prob=0.9, std=0.2),
            ]
        )
        dataset = Dataset(samples(5, labeled), transform)
        loaders.append(DataLoader(dataset, batch_size=2, shuffle=True, num_workers=workers))
    return PairedDataLoader(*loaders, length=LENGTH)


def build_evaluator(network: nn.Module, folder: Path, metric: Any) -> SupervisedEvaluator:
    one_hot = AsDiscreted(["pred", "label"], argmax=[True, False], to_onehot=CLASSES)
    dice = MeanDice(include_background=False, output_transform=from_engine(["pred", "label"]))
    return SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset(samples(3, True)), batch_size=1),
        network=network,
        inferer=SimpleInferer(),
        postprocessing=one_hot,
        key_val_metric={"dice": dice if metric is None else metric},
        val_handlers=[BestNetwork(folder / "model.pt", network)],
    )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """Build a run in a folder; equal arguments give equal runs."""

    def make(
        name: str = "mean_teacher",
        epochs: int = EPOCHS,
        folder: str = "run",
        kind: str = "metassl",
        resume: bool = False,
        workers: int = 0,
        weights_seed: int = 0,
        seed: int | None = 1337,
        interval: int = 1,
        metric: Any = None,
        record: Mapping[str, Any] | None = None,
        handlers: Sequence[Any] = (),
        last_handlers: Sequence[Any] = (),
        **arguments: Any,
    ) -> Run:
        directory = tmp_path / folder
        method = build_method(name, kind, weights_seed)
        optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.01)
        scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=EPOCHS * LENGTH, power=0.9)
        loader = build_loader(workers)
        evaluator = build_evaluator(method.inference_network, directory, metric)
        objects = {"method": method, "optimizer": optimizer, "lr_scheduler": scheduler}
        torch.manual_seed(999)  # random streams where the construction left them would be the same by luck
        trainer = SemiSupervisedTrainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=loader,
            method=method,
            optimizer=optimizer,
            train_handlers=[
                *([SeedEachEpoch(seed, loader)] if seed is not None else []),
                LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
                *handlers,
                ValidationHandler(1, evaluator),
                TrainingCheckpoint(directory / "checkpoint.pt", objects, evaluator, resume, interval, record),
                *last_handlers,
            ],
            **arguments,
        )
        return Run(trainer, evaluator, method, scheduler, directory)

    return make


@pytest.fixture
def steady() -> Callable[[nn.Module], None]:
    """Leave dropout out and batch statistics as they are, so that a network in training says the same each time."""

    def change(method: nn.Module) -> None:
        for module in method.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._BatchNorm):
                module.eval().train = lambda mode=True: None  # type: ignore[method-assign]

    return change


@pytest.fixture
def scripted_metric() -> type[ScriptedMetric]:
    return ScriptedMetric


@pytest.fixture
def make_samples() -> Callable[..., list[dict[str, Any]]]:
    return samples
