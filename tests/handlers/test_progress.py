# SPDX-License-Identifier: Apache-2.0
"""One bar for a whole run, from where the run stands to its end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ignite.engine import Events

from metassl_monai.handlers import RunProgress, TrainingStatistics


def test_bar_counts_the_iterations_of_the_whole_run(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    progress = RunProgress()
    run = make_run("supervised", epochs=2, last_handlers=[progress])
    counts: list[int] = []
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: counts.append(progress.bar.n))
    run.train()
    assert progress.bar.total == 6
    assert counts == [1, 2, 3, 4, 5, 6]
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["handlers", "last_handlers"])
def test_bar_of_a_resumed_run_starts_where_the_run_stands(place: str, make_run: Callable) -> None:
    """Whether it is given before the checkpoint handler, which restores the position, or after it."""
    make_run("supervised", epochs=2).train()
    progress = RunProgress()
    run = make_run("supervised", epochs=4, resume=True, **{place: [progress]})
    counts: list[int] = []
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: counts.append(progress.bar.n))
    run.train()
    assert progress.bar.total == 12
    assert progress.bar.initial == 6
    assert counts == list(range(7, 13))


def test_bar_shows_epoch_loss_and_validation_metric(make_run: Callable, scripted_metric: type) -> None:
    run = make_run("supervised", epochs=1, metric=scripted_metric({1: 0.625}), handlers=[TrainingStatistics()])
    progress = RunProgress(run.evaluator)
    progress.attach(run.trainer)
    run.train()
    loss = run.trainer.state.metrics["loss"]
    for part in ("epoch=1", f"loss={loss:.3f}", "dice=0.625"):
        assert part in progress.bar.postfix


def test_bar_needs_neither_loss_nor_evaluator(make_run: Callable) -> None:
    progress = RunProgress()
    make_run("supervised", epochs=1, last_handlers=[progress]).train()
    assert progress.bar.n == 3
    assert "loss=nan" in progress.bar.postfix


def test_finished_run_that_is_resumed_leaves_a_full_bar_or_none(make_run: Callable) -> None:
    make_run("supervised", epochs=2).train()
    progress = RunProgress()
    make_run("supervised", epochs=2, resume=True, last_handlers=[progress]).train()
    assert progress.bar is None or progress.bar.n == progress.bar.total == 6
