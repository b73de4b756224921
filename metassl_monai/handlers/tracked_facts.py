# SPDX-License-Identifier: Apache-2.0
"""What is told of a training to MLflow beside its metrics: names that it takes, data, pictures, the machine's load."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .nonfatal import nonfatal

__all__ = [
    "LONGEST_NAME",
    "accepted",
    "accepted_text",
    "data_inputs",
    "description",
    "first_section",
    "pictures_of",
    "system_monitor",
]

LONGEST_NAME, _LONGEST_TEXT = 250, 6000


def accepted(name: str) -> str:
    """Return a name of a metric or parameter as MLflow takes it, which allows few characters.

    Example:
        >>> accepted("val_dice/Vorhof (links) 50%"), accepted("../a")
        ('val_dice/Vorhof _links_ 50_', '_./a')
    """
    known = re.sub(r"[^\w\-. /]", "_", name)[:LONGEST_NAME]
    # it must be a path that stays as it is and inside of its folder
    parts = [re.sub(r"^\.", "_", part) or "_" for part in known.split("/")]
    return "/".join(parts)


def first_section(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Repeat the validation's metrics under a name that MLflow sorts before all others.

    Example:
        >>> first_section({"loss": 1.0, "val_mean_dice": 0.75, "val_dice/heart": 0.75})
        {'0_validation/mean_dice': 0.75, '0_validation/heart': 0.75}
    """
    names = {name: name.removeprefix("val_").removeprefix("dice/") for name in metrics if name.startswith("val_")}
    return {f"0_validation/{short}": metrics[name] for name, short in names.items()}


def accepted_text(value: Any) -> str:
    """Return the value of a parameter, cut where MLflow would refuse it."""
    return str(value)[:_LONGEST_TEXT]


def pictures_of(paths: Iterable[Any], epoch: int) -> dict[str, Path]:
    """Return the pictures of an epoch, ``<name>_<epoch>.png`` in folders, by their name."""
    folders = [Path(path) for path in paths if path and Path(path).is_dir()]
    files = [file for folder in folders for file in sorted(folder.glob(f"*_{epoch:04d}.png"))]
    return {file.stem.rpartition("_")[0]: file for file in files}


def data_inputs(prints: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Return the labeled and the unlabeled cases as data sets of MLflow, told apart by their digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=f"{name} cases",
                digest=known["digest"],
                source_type="local",
                source=json.dumps({"files": "names and sizes"}),
                profile=json.dumps({"cases": known["cases"]}),
            ),
            [InputTag("mlflow.data.context", f"training, {name}")],
        )
        for name, known in prints.items()
    ]


def description(facts: Mapping[str, Any], validation: Mapping[str, float]) -> str:
    """Write the text that MLflow shows above a run's metrics, which it sorts by name: the validation first.

    Example:
        >>> print(description({"network": "UNet2D"}, {"val_mean_dice": 0.75}))
        **Validation at the last epoch**: val_mean_dice 0.750
        <BLANKLINE>
        network: UNet2D
    """
    scores = ", ".join(f"{name} {value:.3f}" for name, value in validation.items())
    first = [f"**Validation at the last epoch**: {scores}"] if scores else []
    return "\n\n".join([*first, *(f"{name}: {value}" for name, value in facts.items())])


def system_monitor(run_id: str, uri: str, resume: bool) -> Any:
    """Start to log the machine's load where ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` asks for it, None where not.

    What cannot be read, such as without the package psutil, is a warning.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

    monitor = None
    if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        with nonfatal("no load of the machine in MLflow"):
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(run_id, resume_logging=resume, tracking_uri=uri)
            monitor.start()
    return monitor
