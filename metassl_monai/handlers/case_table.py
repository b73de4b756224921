# SPDX-License-Identifier: Apache-2.0
"""Per-case metrics of an evaluation as CSV and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from metassl_monai.metrics import label_map, segmentation_metrics
from metassl_monai.report import case_rows, write_case_table

from .attached import attach_tables
from .ranks import is_distributed, is_first_rank, of_all_ranks

__all__ = ["CaseTable"]


class CaseTable:
    """Score every case of an evaluation engine in its own geometry and write the table at the end.

    The engine's postprocessing must leave ``pred`` and ``label`` as MetaTensors in the geometry of the file, one-hot
    ``(C, *spatial)`` or class indices ``(1, *spatial)``, in which labels may hold
    :data:`~metassl_monai.ignore.IGNORE`; the items of its data set name their ``case`` and ``subject``. Of a
    distributed evaluation the first process writes the cases of all, each case once. Where the folder lies in that of a
    tracked training, its MLflow run gets the tables.

    Args:
        directory: where ``cases.csv`` and ``metrics.json`` are written.
        labels: name of each class value, background ``"0"`` included.
        has_spacing: False for files that tell no voxel size, such as JPEG: distances in mm are NaN.
    """

    def __init__(self, directory: str | Path, labels: Mapping[str, str], has_spacing: bool = True) -> None:
        self.directory = Path(directory)
        self.labels = labels
        self.has_spacing = has_spacing
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register on the start, each iteration and the end of an evaluation."""
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def score(self, engine: Any) -> None:
        """Score the cases of one iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            label = output["label"]
            spacing = label.pixdim.tolist() if self.has_spacing else None
            metrics = segmentation_metrics(label_map(output["pred"]), label_map(label), self.labels, spacing)
            self.rows += case_rows(item["case"], item["subject"], metrics)

    def write(self) -> None:
        """Write the table."""
        rows = self._of_all_ranks()
        if is_first_rank():
            write_case_table(rows, self.directory)
            attach_tables(self.directory)

    def _of_all_ranks(self) -> list[dict[str, Any]]:
        if not is_distributed():
            return self.rows
        # samplers repeat cases where they do not divide evenly
        by_key = {(row["case"], row["structure"]): row for rows in of_all_ranks(self.rows) for row in rows}
        return [by_key[key] for key in sorted(by_key, key=lambda key: key[0])]
