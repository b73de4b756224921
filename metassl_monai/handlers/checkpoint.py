# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: the whole state of a run at the end of each epoch, and the best or the last network."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn

from metassl_monai.files import atomic_write
from metassl_monai.finite import refuse_not_finite
from metassl_monai.network_record import write_record

from .record import LENGTH, record_differences

__all__ = ["BestNetwork", "CheckpointError", "LastNetwork", "TrainingCheckpoint"]

_logger = logging.getLogger(__name__)
_BEST = ("best_metric", "best_metric_epoch")


def is_first_rank() -> bool:
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the run that is to be resumed."""


class TrainingCheckpoint:
    """Save all that a run needs to go on, and go on from it.

    With :class:`SeedEachEpoch` a resumed run equals the uninterrupted one bit for bit on a CPU. Checkpoints are
    written at epoch ends only: within an epoch the data stream could not be continued. Give it after the
    ``ValidationHandler``, so that it saves the best metric of the epoch that ends.

    Args:
        path: the checkpoint file; loaded with ``weights_only=True``.
        objects: what to save by name, each with ``state_dict`` and ``load_state_dict``: method, optimizer, scheduler.
        evaluator: the validation engine, whose best metric is part of the state.
        resume: continue from ``path`` where it exists; otherwise a run starts anew and overwrites it.
        interval: epochs between two checkpoints; the last epoch is always saved.
        record: what the run is made with, by config id. It is stored, and a run with another one is not resumed,
            unless it is only longer or shorter.

    Raises:
        CheckpointError: when the run starts, if the file is damaged or was made with something else.
        NotFiniteError: instead of saving weights that are not finite.
    """

    def __init__(
        self,
        path: str | Path,
        objects: Mapping[str, Any],
        evaluator: Engine | None = None,
        resume: bool = False,
        interval: int = 1,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.objects = objects
        self.evaluator = evaluator
        self.resume = resume
        self.interval = interval
        self.record = record

    def attach(self, engine: Engine) -> None:
        """Register on ``STARTED`` and ``EPOCH_COMPLETED``."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Restore the state where a checkpoint exists and ``resume`` is set."""
        if not self.resume:
            return
        if not self.path.exists():
            _logger.warning("there is no checkpoint %s to resume: the run starts anew", self.path)
            return
        checkpoint = self._read()
        self._compare(checkpoint)
        planned = {name: getattr(item, "total_iters", None) for name, item in self.objects.items()}
        try:
            self._restore(engine, checkpoint)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2].strip()}"
            raise CheckpointError(
                f"{self.path}: does not fit this run ({reason}): resume with the method and the settings that it was "
                "made with, or choose another --output_dir."
            ) from None
        for name, iterations in planned.items():
            if iterations != getattr(self.objects[name], "total_iters", None):
                _logger.warning(
                    "%s was planned for %s iterations and this run for %s: it keeps the first plan and its rate is 0 "
                    "beyond; resume with the iterations that the run began with",
                    name,
                    self.objects[name].total_iters,
                    iterations,
                )
        _logger.info("resumed from %s after epoch %d", self.path, engine.state.epoch)

    def _read(self) -> dict[str, Any]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                if archive.testzip() is not None:  # torch compares no checksums
                    raise zipfile.BadZipFile("a checksum is wrong")
            checkpoint = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes make torch raise nearly anything
            raise CheckpointError(
                f"{self.path}: is damaged, or no checkpoint ({type(error).__name__}): put back a copy, or remove it to "
                "start anew."
            ) from None
        if not isinstance(checkpoint, dict) or "epoch" not in checkpoint:
            raise CheckpointError(
                f"{self.path}: is not the checkpoint of a training: put back the checkpoint.pt that the run wrote, or "
                "remove it to start anew."
            )
        return checkpoint

    def _compare(self, checkpoint: Mapping[str, Any]) -> None:
        if self.record is None:
            return
        if "record" not in checkpoint:
            _logger.warning(
                "%s does not say what it was made with: whether that fits this run is not checked", self.path
            )
            return
        differences = record_differences(checkpoint["record"], self.record, without=LENGTH)
        if differences:
            raise CheckpointError(
                f"{self.path}: this run is not the one that the checkpoint was made with: {differences}. Resume with "
                "the former settings and cases, or start another run with another --output_dir."
            )

    def _restore(self, engine: Any, checkpoint: Mapping[str, Any]) -> None:
        for name, item in self._all_objects(engine).items():
            if checkpoint[name]:  # the state of a scaler that is off is empty, and cannot be loaded into one that is on
                item.load_state_dict(checkpoint[name])
        if self.evaluator is not None:
            for key in _BEST:
                setattr(self.evaluator.state, key, checkpoint["evaluator"][key])
        engine.state.epoch, engine.state.iteration = checkpoint["epoch"], checkpoint["iteration"]

    def save(self, engine: Any) -> None:
        """Write the state of the run."""
        epoch, last = engine.state.epoch, engine.state.max_epochs
        if not is_first_rank() or (epoch % self.interval != 0 and epoch != last):
            return
        checkpoint = {name: item.state_dict() for name, item in self._all_objects(engine).items()}
        if self.evaluator is not None:
            checkpoint["evaluator"] = {key: _plain(getattr(self.evaluator.state, key)) for key in _BEST}
        checkpoint |= {"epoch": epoch, "iteration": engine.state.iteration}
        if self.record is not None:
            checkpoint["record"] = dict(self.record)
        refuse_not_finite(engine.unwrapped_method.state_dict(), f"iteration {engine.state.iteration}")
        with atomic_write(self.path, "wb") as file:
            torch.save(checkpoint, file)

    def _all_objects(self, engine: Any) -> dict[str, Any]:
        return {**self.objects, "scaler": engine.scaler}


class BestNetwork:
    """Keep the network with the best key metric as a flat state dict, which ``inference.json`` loads.

    Args:
        path: the file, usually ``models/model.pt``.
        network: the network to save, usually ``method.inference_network``.
        record: what the network is made with; written to a JSON file beside it, with the SHA-256 of the network's file.

    Raises:
        NotFiniteError: instead of saving weights that are not finite.
    """

    def __init__(self, path: str | Path, network: nn.Module, record: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.network = network
        self.record = record

    def attach(self, engine: Engine) -> None:
        """Register on the ``EPOCH_COMPLETED`` of a validation engine."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Any) -> None:
        """Write the network if this validation was the best so far."""
        if is_first_rank() and engine.state.best_metric_epoch == engine.state.epoch:
            save_network(self.network, self.path, self.record)


class LastNetwork:
    """Keep the network as the training left it, as a flat state dict: for protocols without validation, and stages.

    Args:
        path: the file; it appears when the training is complete.
        network: the network to save, usually ``method.inference_network``.
        record: what the network is made with; written to a JSON file beside it, with the SHA-256 of the network's file.

    Raises:
        NotFiniteError: instead of saving weights that are not finite.
    """

    def __init__(self, path: str | Path, network: nn.Module, record: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.network = network
        self.record = record

    def attach(self, engine: Engine) -> None:
        """Register on the ``COMPLETED`` of a trainer."""
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self) -> None:
        """Write the network."""
        if is_first_rank():
            save_network(self.network, self.path, self.record)


def save_network(network: nn.Module, path: Path, record: Mapping[str, Any] | None = None) -> None:
    state = network.state_dict()
    refuse_not_finite(state, str(path))
    content = io.BytesIO()
    torch.save(state, content)
    if record is not None:  # first, since a network without its record would pass for a user's own
        write_record(path, content.getbuffer(), record)
    with atomic_write(path, "wb") as file:
        file.write(content.getbuffer())


def _plain(value: Any) -> int | float:
    """A number that ``torch.load(weights_only=True)`` accepts: metrics come as NumPy scalars or tensors."""
    return value.item() if hasattr(value, "item") else value
