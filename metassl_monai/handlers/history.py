# SPDX-License-Identifier: Apache-2.0
"""The metrics of every epoch in one table, with or without a tracking server."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from metassl_monai.files import atomic_write

from .nonfatal import nonfatal

__all__ = ["History"]


class History:
    """Append the metrics of each epoch to a CSV file, one row an epoch.

    Rows of this epoch and of later ones, left by a run that is resumed or done anew, are dropped. Metrics that appear
    later become new columns, empty in the rows before. Give it after the handlers that make metrics, the
    ``ValidationHandler`` included, and on the first rank only. A table that cannot be written is a warning.

    Args:
        path: the file, usually ``history.csv``.
        evaluator: the validation engine; its metrics are added in the epochs in which it ran.
    """

    def __init__(self, path: str | Path, evaluator: Any = None) -> None:
        self.path = Path(path)
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        """Register on ``EPOCH_COMPLETED``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the table up to this epoch."""
        epoch = engine.state.epoch
        with nonfatal(f"{self.path} lacks epoch {epoch}"):
            row = {"epoch": epoch, "iteration": engine.state.iteration, **self._metrics(engine)}
            rows = [*_rows_before(self.path, epoch), row]
            columns = list(dict.fromkeys(name for known in rows for name in known))
            with atomic_write(self.path) as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)

    def _metrics(self, engine: Engine) -> dict[str, float]:
        metrics = dict(engine.state.metrics)
        if self.evaluator is not None and self.evaluator.state.epoch == engine.state.epoch:
            metrics |= self.evaluator.state.metrics
        scalars = {name: _scalar(value) for name, value in metrics.items()}
        return {name: value for name, value in scalars.items() if value is not None}


def _rows_before(path: Path, epoch: int) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]


def _scalar(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # a table of metrics, which has no column
        return None
