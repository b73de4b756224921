# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: the whole state of a run at the end of each epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from ignite.engine import Engine, Events
from ignite.engine.events import EventEnum

from metassl_monai.files import atomic_write, remove_leftovers
from metassl_monai.finite import refuse_not_finite

from .checkpoint_file import CheckpointError, newest_checkpoint, previous_checkpoint
from .ranks import is_first_rank
from .record import LENGTH, record_differences
from .termination import stop_at_safe_points

__all__ = ["SAVING", "CheckpointError", "TrainingCheckpoint"]

_logger = logging.getLogger(__name__)
_BEST = ("best_metric", "best_metric_epoch")


class _CheckpointEvents(EventEnum):
    SAVING = "saving"


SAVING = _CheckpointEvents.SAVING
"""Fired before a checkpoint is written, for what is recorded elsewhere and must not lack an epoch that is done."""


class TrainingCheckpoint:
    """Save all that a run needs to go on, and go on from it.

    With :class:`SeedEachEpoch` a resumed run equals the uninterrupted one bit for bit on a CPU. Checkpoints are
    written at epoch ends only: within an epoch the data stream could not be continued. Give it after the
    ``ValidationHandler``, so that it saves the best metric of the epoch that ends.

    The checkpoint before the newest is kept beside it, as ``checkpoint_previous.pt``, so that at each instant one whole
    file is there. Where the newest is damaged, a run goes on from the one before: the epoch between them is done again
    and writes its network, history and pictures again.

    Two processes never train in one folder: the first holds a lock beside the checkpoint until it ends. A training that
    is stopped by a signal says which checkpoint it leaves.

    Args:
        path: the checkpoint file; loaded with ``weights_only=True``.
        objects: what to save by name, each with ``state_dict`` and ``load_state_dict``: method, optimizer, scheduler.
        evaluator: the validation engine, whose best metric is part of the state.
        resume: continue from ``path`` where it exists; otherwise a run starts anew and overwrites it.
        interval: epochs between two checkpoints; the last epoch is always saved.
        record: what the run is made with, by config id. It is stored, and a run with another one is not resumed,
            unless it is only longer or shorter.
        keep: keep the checkpoints of a run that is complete; those of a first stage go when its network is there.

    Raises:
        CheckpointError: when the run starts, if both files are damaged or the one to go on from was made with
            something else, or another process trains in this folder.
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
        keep: bool = True,
    ) -> None:
        self.path = Path(path)
        self.objects = objects
        self.evaluator = evaluator
        self.resume = resume
        self.interval = interval
        self.record = record
        self.keep = keep
        self.anew = True
        self.whole = False  # whether the file in place is a whole checkpoint of this run
        self.saved = "No epoch was complete: nothing of this stage was saved."
        # one a process, so that a second run in this process is no other training
        self.lock = FileLock(self.path.with_name(".training.lock"), is_singleton=True)

    def attach(self, engine: Engine) -> None:
        """Register on ``STARTED``, ``EPOCH_COMPLETED`` and ``COMPLETED``."""
        engine.register_events(SAVING)
        engine.add_event_handler(Events.STARTED, self.claim)
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.leave)

    def claim(self, engine: Engine) -> None:
        """Keep other processes from training in this folder, and be told when the training is to stop."""
        engines = (engine,) if self.evaluator is None else (engine, self.evaluator)
        stop_at_safe_points(*engines, tell=lambda: self.saved)
        if not is_first_rank():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"{self.path.parent}: another process trains in this folder: wait for it, or choose another "
                "--output_dir."
            ) from None
        remove_leftovers(self.path.parent, ".pt")

    def leave(self) -> None:
        """Leave the folder to others when the run is complete."""
        if is_first_rank() and not self.keep:
            for path in (previous_checkpoint(self.path), self.path):
                path.unlink(missing_ok=True)
        self.lock.release(force=True)

    def load(self, engine: Engine) -> None:
        """Restore the state where a checkpoint exists and ``resume`` is set."""
        if not self.resume:
            return
        if not (self.path.exists() or previous_checkpoint(self.path).exists()):
            _logger.warning("there is no checkpoint %s to resume: begins at the first epoch", self.path)
            return
        path, checkpoint = newest_checkpoint(self.path)
        self._compare(path, checkpoint)
        planned = {name: getattr(item, "total_iters", None) for name, item in self.objects.items()}
        try:
            self._restore(engine, checkpoint)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2].strip()}"
            raise CheckpointError(
                f"{path}: does not fit this run ({reason}): resume with the method and the settings that it was "
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
        self.anew, self.whole = False, path == self.path
        self._remember(engine, path)
        _logger.info("resumed from %s after epoch %d", path, engine.state.epoch)

    def _compare(self, path: Path, checkpoint: Mapping[str, Any]) -> None:
        if self.record is None:
            return
        if "record" not in checkpoint:
            _logger.warning("%s does not say what it was made with: whether that fits this run is not checked", path)
            return
        differences = record_differences(checkpoint["record"], self.record, without=LENGTH)
        if differences:
            raise CheckpointError(
                f"{path}: this run is not the one that the checkpoint was made with: {differences}. Resume with "
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
        engine.fire_event(SAVING)
        previous = previous_checkpoint(self.path)
        with atomic_write(self.path, "wb", keep=previous if self.whole else None) as file:
            torch.save(checkpoint, file)
        if self.anew:
            previous.unlink(missing_ok=True)  # of a training that was here before
        self.anew, self.whole = False, True
        self._remember(engine, self.path)

    def _remember(self, engine: Engine, path: Path) -> None:
        done, last = engine.state.epoch, engine.state.max_epochs
        self.saved = f"{path} holds epoch {done} of {last}: the same command with --resume True goes on from there."

    def _all_objects(self, engine: Any) -> dict[str, Any]:
        return {**self.objects, "scaler": engine.scaler}


def _plain(value: Any) -> int | float:
    """A number that ``torch.load(weights_only=True)`` accepts: metrics come as NumPy scalars or tensors."""
    metric: int | float = value.item() if hasattr(value, "item") else value
    return metric
