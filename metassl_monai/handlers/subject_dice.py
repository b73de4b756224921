# SPDX-License-Identifier: Apache-2.0
"""The key metric of a validation: the mean Dice of the tables of an evaluation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine
from ignite.metrics import Metric
from torch import Tensor

from metassl_monai.metrics import dice_by_structure, label_map
from metassl_monai.report import case_rows, summarize

from .ranks import of_all_ranks

__all__ = ["SubjectDice"]

_logger = logging.getLogger(__name__)


class SubjectDice(Metric):
    """Mean Dice over subjects, by the definition and the code of the tables that :class:`CaseTable` writes.

    A structure that is in exactly one of prediction and annotation counts 0; one that is in neither is left out of its
    case's mean. The cases of a subject are averaged first. The value is NaN, with a warning, where no structure was
    found in any case. ``engine.state.metrics`` also gets ``val_dice/<structure>``, the same of each structure.

    The engine's postprocessing must leave ``pred`` and ``label`` one-hot, ``(C, *spatial)``, or as class indices,
    ``(1, *spatial)``, in which labels may hold :data:`~metassl_monai.ignore.IGNORE`. Items of the data set name their
    ``subject``; one without is a subject of its own. Under distributed validation the cases of all ranks are brought
    together.

    Args:
        labels: name of each class value, background ``"0"`` included.

    Example::

        >>> import torch
        >>> from metassl_monai.handlers import SubjectDice
        >>> metric = SubjectDice({"0": "background", "1": "RV", "2": "LV"})
        >>> truth = torch.tensor([[[1, 1, 0, 0]]])
        >>> metric.update((truth, truth, "a"))
        >>> metric.update((torch.tensor([[[1, 1, 2, 2]]]), truth, "b"))
        >>> metric.compute()
        {'RV': 1.0, 'LV': 0.0, 'mean': 0.75}
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        super().__init__()

    def reset(self) -> None:
        """Forget all cases."""
        self._cases: list[tuple[str | None, dict[str, dict[str, float]]]] = []

    def update(self, output: tuple[Tensor, Tensor, str | None]) -> None:
        """Score one case: prediction, annotation and subject."""
        prediction, truth, subject = output
        dice = dice_by_structure(label_map(prediction), label_map(truth), self.labels)
        self._cases.append((subject, {name: {"dice": value} for name, value in dice.items()}))

    def compute(self) -> dict[str, float]:
        """Return the Dice of each structure, and their ``"mean"``."""
        cases = [case for cases in of_all_ranks(self._cases) for case in cases]
        rows = []
        for number, (subject, metrics) in enumerate(cases):
            rows += case_rows(str(number), subject or f"case {number}", metrics)
        return {row["structure"]: row["mean"] for row in summarize(rows)}

    def iteration_completed(self, engine: Any) -> None:
        """Score the cases of one iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.update((output["pred"], output["label"], item.get("subject")))

    def completed(self, engine: Engine, name: str) -> None:
        """Put the mean under ``name`` and each structure's value beside it."""
        dice = self.compute()
        mean = engine.state.metrics[name] = dice.pop("mean", math.nan)
        if math.isnan(mean):
            _logger.warning("%s is NaN, since no case has any structure: it can choose no network", name)
        engine.state.metrics |= {f"val_dice/{key.replace(' ', '_')}": value for key, value in dice.items()}
