# SPDX-License-Identifier: Apache-2.0
"""What hands the first stage of a two-stage training to the second."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from metassl_monai.engines import PairedDataLoader, SemiSupervisedTrainer
from metassl_monai.finite import first_not_finite
from metassl_monai.handlers import LastNetwork, RunProgress, SeedEachEpoch, TrainingCheckpoint, TrainingStatistics
from metassl_monai.handlers.ranks import is_distributed, wait_for_all_ranks
from metassl_monai.handlers.record import LENGTH, record_differences
from metassl_monai.methods import Method
from metassl_monai.network_record import read_record

from .errors import UserError

__all__ = ["first_stage", "first_stage_trainer", "start_from"]

_logger = logging.getLogger(__name__)


def first_stage_trainer(
    path: str | Path,
    checkpoint: str | Path,
    method: Method,
    optimizer: Optimizer,
    train_data_loader: PairedDataLoader,
    max_epochs: int,
    device: torch.device,
    seed: int,
    rank: int = 0,
    amp: bool = False,
    resume: bool = False,
    record: Mapping[str, Any] | None = None,
) -> SemiSupervisedTrainer:
    """Return the engine of a first stage: it leaves its network, checkpoints of its own, and no history.

    Args:
        path: where its network goes when it ends.
        checkpoint: its checkpoint, which is removed then.
        method: the method of the first stage; trained with ``DistributedDataParallel`` in a distributed run.
        optimizer: of the method's parameters.
        train_data_loader: the batches of the second stage.
        max_epochs: number of epochs.
        device: where to run.
        seed: seed of each epoch.
        rank: of this process; the first one shows the progress.
        amp: mixed precision.
        resume: go on from ``checkpoint``.
        record: what the network is made with, see :func:`run_record`.
    """
    module: nn.Module = method.to(device)
    if is_distributed():
        module = DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)
    handlers = [
        SeedEachEpoch(seed, train_data_loader),
        TrainingStatistics(),
        *([RunProgress()] if rank == 0 else []),
        LastNetwork(path, method.inference_network, record),
        TrainingCheckpoint(
            checkpoint, {"method": method, "optimizer": optimizer}, resume=resume, record=record, keep=False
        ),
    ]
    return SemiSupervisedTrainer(
        device,
        max_epochs,
        train_data_loader,
        module,
        optimizer,
        train_handlers=handlers,
        amp=amp,
        optim_set_to_none=True,
    )


def first_stage(path: str | Path, trainer: Any, record: Mapping[str, Any] | None, resume: bool = False) -> None:
    """Train the first stage where its network is absent; otherwise make sure that the one there is this run's own.

    Args:
        path: the network that the first stage leaves; its record is the JSON file beside it.
        trainer: the engine of the first stage.
        record: what the first stage of this run is made with, see :func:`run_record`.
        resume: the run goes on, so that it may be longer or shorter than the one that made the network.

    Raises:
        UserError: when the network was made with something else.
    """
    path = Path(path)
    if not path.is_file():
        trainer.run()
    elif not path.with_suffix(".json").is_file():
        _logger.warning("%s: no record tells what this network was made from; it is used as it is", path)
    elif record is not None:
        _refuse_another(path, record, LENGTH if resume else ())


def _refuse_another(path: Path, record: Mapping[str, Any], without: Collection[str]) -> None:
    remedy = f"Remove {path} to train the first stage again, or pass another --output_dir or --pretrained_path."
    try:
        digest, made = read_record(path)
    except (OSError, ValueError):
        raise UserError(f"{path.with_suffix('.json')}: is damaged, or no record of a first stage. {remedy}") from None
    if digest != _digest(path):
        raise UserError(f"{path}: is not the network that {path.with_suffix('.json')} was written for. {remedy}")
    differences = record_differences(made, record, without)
    if differences:
        raise UserError(f"{path}: is the first stage of another run: {differences}. {remedy}")
    _logger.info("%s: was made with the same cases and settings and is used again", path)


def start_from(path: str | Path, *networks: nn.Module) -> str:
    """Load the network that a first stage left into the networks of the second, and log the file's hash.

    Args:
        path: a flat state dict.
        networks: for example student and teacher.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        UserError: when the file is missing, damaged, not finite or of another network.
    """
    wait_for_all_ranks()  # the first process has written the file
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no network of a first stage: run the id 'pretraining' first, or correct the path.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise nearly anything
        cause = type(error).__name__
        raise UserError(f"{path}: holds no weights of a network ({cause}): remove it, or correct the path.") from None
    try:
        for network in networks:
            network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError):
        raise UserError(f"{path}: is of another network than the config's: remove it, or correct the path.") from None
    if name := first_not_finite(state):
        raise UserError(f"{path}: its {name} is not finite: remove it, or correct the path.")
    digest = _digest(path)
    _logger.info("starting from %s, SHA-256 %s", path, digest)
    return digest


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
