# SPDX-License-Identifier: Apache-2.0
"""The table of a run holds what its handlers found, resumed or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ignite.engine import Events

from metassl_monai.handlers import History, TrainingStatistics
from metassl_monai.report import read_history


def write(history: History, epoch: int, **metrics: Any) -> None:
    history(SimpleNamespace(state=SimpleNamespace(epoch=epoch, iteration=10 * epoch, metrics=metrics)))


def test_rows_hold_the_metrics_of_trainer_and_evaluator(make_run: Callable, tmp_path: Path) -> None:
    path, seen = tmp_path / "history.csv", []
    run = make_run(epochs=3, handlers=[TrainingStatistics()])
    History(path, run.evaluator).attach(run.trainer)
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: seen.append({**run.trainer.state.metrics, **run.evaluator.state.metrics})
    )
    run.train()
    table = read_history(path)
    assert table.pop("epoch") == [1, 2, 3]
    assert table.pop("iteration") == [3, 6, 9]
    assert set(table) == set(seen[0])
    assert "dice" in table
    for name, values in table.items():
        assert values == [float(epoch[name]) for epoch in seen]


def test_an_evaluator_that_did_not_run_adds_nothing(tmp_path: Path) -> None:
    evaluator = SimpleNamespace(state=SimpleNamespace(epoch=2, metrics={"dice": 0.5}))
    history = History(tmp_path / "history.csv", evaluator)
    for epoch in (1, 2, 3):
        write(history, epoch, loss=1.0)
    np.testing.assert_equal(read_history(history.path)["dice"], [np.nan, 0.5, np.nan])


def test_a_resumed_run_has_the_table_of_the_uninterrupted_one(make_run: Callable, tmp_path: Path) -> None:
    for folder, parts in (("whole", (4,)), ("parts", (3, 4))):
        for epochs in parts:
            path = tmp_path / folder / "history.csv"
            handlers = [TrainingStatistics(), History(path)]
            run = make_run(folder=folder, epochs=epochs, resume=epochs == 4, interval=2, handlers=handlers).train()
    assert run.trainer.state.epoch == 4
    tables = [(tmp_path / folder / "history.csv").read_text() for folder in ("whole", "parts")]
    assert tables[0] == tables[1]


def test_rows_of_this_epoch_and_later_ones_are_dropped(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        write(History(tmp_path / "history.csv"), epoch, loss=float(epoch))
    write(History(tmp_path / "history.csv"), 2, loss=20.0)
    assert read_history(tmp_path / "history.csv") == {"epoch": [1, 2], "iteration": [10, 20], "loss": [1, 20]}
    write(History(tmp_path / "history.csv"), 1, loss=0.1)
    assert read_history(tmp_path / "history.csv")["loss"] == [0.1]


def test_columns_may_come_and_go(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    write(history, 1, loss=1.0)
    write(history, 2, loss=2.0, late=np.float32(0.5), text="name", table=[1, 2])
    write(history, 3, late="0.25")
    table = read_history(history.path)
    assert list(table) == ["epoch", "iteration", "loss", "late"]
    np.testing.assert_equal(table["loss"], [1, 2, np.nan])
    np.testing.assert_equal(table["late"], [np.nan, 0.5, 0.25])


@pytest.mark.parametrize("obstacle", ["folder", "foreign"])
def test_a_table_that_cannot_be_written_is_a_warning(obstacle: str, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "history.csv"
    path.mkdir() if obstacle == "folder" else path.write_text("something,else\n1,2\n")
    write(History(path), 1, loss=1.0)
    assert "lacks epoch 1" in caplog.text
    assert path.is_dir() or path.read_text() == "something,else\n1,2\n"
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]
