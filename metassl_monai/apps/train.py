# SPDX-License-Identifier: Apache-2.0
"""Trains a bundle, for as long as there is time."""

from __future__ import annotations

import ast
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from metassl_monai.bundle.errors import UserError
from metassl_monai.bundle.locate import bundle_path, checked_command, config_files, left_behind, run_bundle
from metassl_monai.bundle.writable import check_no_training, check_writable
from metassl_monai.files import write_json

__all__ = ["iterations_in", "train_bundle"]

_WARM, _TIMED = 3, 7
_FOR_TRAINING = 0.85
"""Share of the time for iterations; starting, validating and saving take the rest."""


def train_bundle(bundle: str, names: Sequence[str], arguments: Sequence[str], minutes: float | None = None) -> None:
    """Print and run the training of a bundle.

    Args:
        bundle: its name or folder.
        names: the overlays after ``train``, such as a method.
        arguments: further ``--id value`` for MONAI; ``--resume`` and ``--overwrite`` may stand alone.
        minutes: time for the whole training, which replaces ``--iterations``: a few steps are measured first. A
            training that is resumed goes on to the iterations that were measured when it began, also without it.

    Raises:
        UserError: for an unknown bundle, overlay or id, for a folder that holds a training, or when the training fails.
    """
    folder = bundle_path(bundle)
    files = config_files(folder, ["train", *names])
    arguments = _with_values(arguments)
    if "--bundle_root" not in arguments and left_behind(files[0], ConfigParser.load_config_file(files[0])):
        arguments = [*arguments, "--bundle_root", str(folder.resolve())]
    if minutes is not None and "--iterations" in arguments:
        raise UserError("--minutes and --iterations both say how long to train: give one of them.")
    checked_command("training", files, arguments)
    iterations = _fitting(minutes, files, arguments)
    run_bundle("training", files, arguments if iterations is None else [*arguments, "--iterations", str(iterations)])


def _fitting(minutes: float | None, files: Sequence[Path], arguments: Sequence[str]) -> int | None:
    """Return how many iterations fit into a time, of a resumed training those that were measured when it began.

    None where nothing is to be measured: config or command line say the number.
    """
    given = _ids(arguments)
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.update({name: value for name, value in given.items() if name != "tracking"})
    resume = bool(given.get("resume"))
    check_no_training(parser.get_parsed_content("ckpt_dir"), resume, bool(given.get("overwrite")))
    out = Path(parser.get_parsed_content("output_dir"))
    check_writable(out)
    known = out / "minutes.json"
    if minutes is None and ("iterations" in given or not resume):
        known.unlink(missing_ok=True)  # this training has another length, to which it is resumed
        return None
    if resume and known.is_file():
        iterations: int = json.loads(known.read_text(encoding="utf-8"))["iterations"]
        sys.stdout.write(f"going on to the {iterations} iterations of {known}\n")
        return iterations
    if minutes is None:
        return None
    iterations = iterations_in(minutes, files, arguments)
    # a training ends with an epoch, and would go beyond its time for one that is begun
    iterations -= iterations % min(iterations, int(parser.get_parsed_content("iterations_per_epoch")))
    sys.stdout.write(f"{minutes:g} minutes are about {iterations} iterations on this machine\n")
    write_json(known, {"minutes": minutes, "iterations": iterations})
    return iterations


def iterations_in(minutes: float, files: Sequence[Path], arguments: Sequence[str]) -> int:
    """Measure a few training steps and return how many fit into a time, a first stage of a third included.

    Args:
        minutes: the time.
        files: the configs.
        arguments: ``--id value`` of the training, as texts.

    Raises:
        UserError: when ``minutes`` is not above 0.
    """
    if minutes <= 0:
        raise UserError(f"--minutes {minutes:g}: must be more than 0.")
    given = {name: value for name, value in _ids(arguments).items() if name not in ("resume", "overwrite", "tracking")}
    steps: dict[str, Any] = {"iterations": _WARM + _TIMED, "iterations_per_epoch": _WARM + _TIMED}
    with TemporaryDirectory(prefix="metassl-") as folder:
        quiet = {"output_dir": folder, "check_data": False, "keep": "last", "resume": False}
        workflow = ConfigWorkflow(
            [str(file) for file in files],
            workflow_type="train",
            run_id="training",
            logging_file=False,
            **{**given, **steps, **quiet},
        )
        workflow.initialize()
        trainer: Any = workflow.parser.get_parsed_content("train::trainer")
        ends: list[float] = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: ends.append(time.monotonic()))
        trainer.run()
        staged = bool(workflow.parser["first_stage"])
        workflow.finalize()
    seconds = (ends[-1] - ends[_WARM - 1]) / _TIMED
    share = _FOR_TRAINING * (0.75 if staged else 1.0)
    return max(1, int(60 * minutes * share / seconds))


def _ids(arguments: Sequence[str]) -> dict[str, Any]:
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    return {name.removeprefix("--"): _literal(value) for name, value in pairs}


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Give a lone ``--resume`` or ``--overwrite`` the value that MONAI needs."""
    places = [i for i, word in enumerate(arguments) if word in ("--resume", "--overwrite")]
    words = list(arguments)
    for i in reversed(places):
        if i + 1 == len(words) or words[i + 1].startswith("--"):
            words.insert(i + 1, "True")
    return words


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
