# SPDX-License-Identifier: Apache-2.0
"""What is made of a training after it has ended, in the training's MLflow run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .nonfatal import nonfatal
from .tracked_run import TrackedRun

__all__ = ["attach_tables", "attach_to_run", "set_time_limits"]


def attach_to_run(folder: Path, files: Iterable[Path], artifact_path: str) -> None:
    """Log files to the MLflow run of a training, where it was tracked; a failure is a warning.

    Args:
        folder: output folder of the training, whose ``mlflow_run.json`` names the run.
        files: the files.
        artifact_path: folder of the run's artifacts.
    """
    known = TrackedRun(folder / "mlflow_run.json").read()
    if known:
        with nonfatal(f"{artifact_path} is not in MLflow"):
            from mlflow import MlflowClient

            set_time_limits()
            client = MlflowClient(tracking_uri=known["tracking_uri"])
            for file in files:
                client.log_artifact(known["run_id"], str(file), artifact_path)


def attach_tables(directory: Path) -> None:
    """Log the tables of an evaluation in the output folder of a training to the training's MLflow run."""
    tables = [directory / name for name in ("cases.csv", "metrics.json")]
    attach_to_run(directory.parent, tables, directory.name)


def set_time_limits() -> None:
    """Let MLflow try a request three times of 10 s, unless the user's environment says otherwise."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
