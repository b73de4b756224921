# SPDX-License-Identifier: Apache-2.0
"""One progress bar for a whole run, with the time that is left."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from metassl_monai.progress import Progress

__all__ = ["RunProgress"]


class RunProgress:
    """Show iterations done, speed and ETA of a run; loss and validation metric are refreshed once an epoch.

    Ignite's ``ProgressBar`` starts anew each epoch, so it cannot tell when a run ends.

    Args:
        evaluator: the validation engine whose key metric is shown.
    """

    def __init__(self, evaluator: Any = None) -> None:
        self.evaluator = evaluator
        self.bar: Progress | None = None

    def attach(self, engine: Engine) -> None:
        """Register on each epoch, each iteration and the end of the run."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.describe)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def start(self, engine: Any) -> None:
        """Open the bar where the run stands, in the first epoch: only then a resumed run knows where that is."""
        if self.bar is not None and not self.bar.disable:
            return
        total = engine.state.max_epochs * engine.state.epoch_length
        self.bar = Progress(total=total, initial=engine.state.iteration, unit="it", desc="training", mininterval=1.0)

    def advance(self) -> None:
        """Count one iteration."""
        if self.bar is not None:
            self.bar.update()

    def describe(self, engine: Engine) -> None:
        """Show the epoch's loss and the last validation metric."""
        if self.bar is None:
            return
        shown = {"epoch": engine.state.epoch, "loss": f"{engine.state.metrics.get('loss', float('nan')):.3f}"}
        name = self.evaluator.state.key_metric_name if self.evaluator is not None else None
        if name is not None and name in self.evaluator.state.metrics:
            shown[name] = f"{self.evaluator.state.metrics[name]:.3f}"
        self.bar.set_postfix(shown, refresh=False)  # shown with the next iteration: a refresh is a line of a log

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        if self.bar is not None:
            self.bar.close()
