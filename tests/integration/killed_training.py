# SPDX-License-Identifier: Apache-2.0
"""One small training of the phantom in a process of its own, and the ways in which that process may end early."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metassl_monai.bundle.locate import bundle_command, bundle_path, config_files

BUNDLE = bundle_path("phantom_segmentation")
EPOCHS = 8
TINY = [
    *(
        "--features",
        "[4,8,16,32,64]",
        "--spatial_size",
        "[32,32]",
        "--labeled_batch_size",
        "2",
        "--check_data",
        "False",
    ),
    *("--unlabeled_batch_size", "2", "--iterations", str(2 * EPOCHS), "--iterations_per_epoch", "2"),
    *("--phantom", "{'cases':6,'labeled':1,'validation':1,'test':1,'size':[32,32,3]}", "--picture_interval", "9999"),
]
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
WHILE_SAVING, BETWEEN_RENAMES = "while a checkpoint is written", "between the two renames"
AFTER_THE_LAST = "after a stage's last checkpoint"
KINDS = (*SIGNALS, WHILE_SAVING, BETWEEN_RENAMES, AFTER_THE_LAST)

# A process that has imported everything and forks the trainings, since to import takes longer than to train.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["monai.bundle", "mlflow", "metassl_monai.bundle", "metassl_monai.engines", __name__])


@dataclass
class Ending:
    """How a training is to end early: by a signal after some seconds, or by its own hand at a checkpoint.

    Args:
        kind: one of ``KINDS``.
        seconds: after the first iteration, for a signal.
        checkpoint: the number of the checkpoint that is not completed, while one is saved.
    """

    kind: str
    seconds: float = 0.0
    checkpoint: int = 1


def random_ending(chance: random.Random, kind: str, seconds: float) -> Ending:
    """Draw the moment; ``seconds`` is what an uninterrupted training takes."""
    return Ending(kind, chance.uniform(0, 0.4 * seconds), chance.randint(1, 3))


def train(method: str, folder: Path, data: Path, database: Path | None = None, ending: Ending | None = None) -> int:
    """Train, or go on with the training that the folder holds.

    Args:
        method: the overlay.
        folder: of this run.
        data: of the phantom, which is drawn where it is absent.
        database: of MLflow, in which the run is tracked; not tracked if left out.
        ending: left out, it runs to its end.

    Returns:
        The exit status; minus the signal's number where that ended the process.
    """
    arguments = [*TINY, "--dataset_dir", str(data), "--output_dir", str(folder)]
    arguments += ["--resume", "True"] if folder.is_dir() else []
    if database is not None:
        arguments += ["--tracking", str(BUNDLE / "configs" / "tracking.json"), "--experiment_name", folder.name]
        arguments += ["--tracking_uri", f"sqlite:///{database}"]
    command = bundle_command("training", config_files(BUNDLE, ["train", method]), arguments)
    folder.mkdir(parents=True, exist_ok=True)
    begun = _processes.Event()
    process = _processes.Process(target=_run, args=(command[3:], folder / "log.txt", begun, ending))
    process.start()
    if ending is not None and ending.kind in SIGNALS:
        while not begun.wait(0.02) and process.is_alive():
            pass
        process.join(ending.seconds)
        if process.is_alive():
            os.kill(process.pid, getattr(signal, ending.kind))
    process.join()
    return process.exitcode


def _run(arguments: list[str], log: Path, begun: Any, ending: Ending | None) -> None:
    """Be ``python -m monai.bundle`` with these arguments."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background would ignore
    _tell_when_it_trains(begun)
    plans = {
        WHILE_SAVING: _die_while_saving,
        BETWEEN_RENAMES: _die_between_renames,
        AFTER_THE_LAST: _die_after_the_last,
    }
    if ending is not None and ending.kind in plans:
        plans[ending.kind](ending.checkpoint)
    sys.argv = ["monai.bundle", *arguments]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def _tell_when_it_trains(begun: Any) -> None:
    from metassl_monai.engines import SemiSupervisedTrainer

    run = SemiSupervisedTrainer.run

    def tell(self: Any) -> None:
        begun.set()
        run(self)

    SemiSupervisedTrainer.run = tell


def _die_while_saving(number: int) -> None:
    import torch

    save, die = torch.save, _countdown(number)

    def half(content: Any, file: Any) -> None:
        if "epoch" in content:  # a checkpoint, no network
            whole = io.BytesIO()
            save(content, whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            die()
            file.seek(0)
        save(content, file)

    torch.save = half


def _die_between_renames(number: int) -> None:
    replace, die = os.replace, _countdown(number)

    def first_one(source: Any, target: Any) -> None:
        if str(target).endswith("checkpoint.pt"):
            die()
        replace(source, target)

    os.replace = first_one


def _die_after_the_last(_: int) -> None:
    from metassl_monai.handlers import TrainingCheckpoint

    save, die = TrainingCheckpoint.save, _countdown(1)

    def last_one(self: Any, engine: Any) -> None:
        save(self, engine)
        if engine.state.epoch == engine.state.max_epochs:
            die()

    TrainingCheckpoint.save = last_one


def _countdown(number: int) -> Callable[[], None]:
    left = [number]

    def die() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    return die
