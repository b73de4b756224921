# SPDX-License-Identifier: Apache-2.0
"""MLflow tracking that cannot end a training run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from ignite.engine import Engine
from monai.handlers import MLFlowHandler

__all__ = ["SafeMLFlowHandler"]


class SafeMLFlowHandler(MLFlowHandler):
    """MONAI's ``MLFlowHandler``, whose failures are one warning: a lost server costs the tracking, not the training.

    After the first failure nothing more is sent. Arguments are those of ``monai.handlers.MLFlowHandler``. Artifacts
    that are files are sent when the run starts, too, so that an interrupted run has its config. A request is tried
    three times, unless ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` says otherwise: MLflow's own eight tries would hold the
    training up for minutes.
    """

    def __init__(self, **kwargs: Any) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        self.failed = False
        self._guard(super().__init__, **kwargs)

    def attach(self, engine: Engine) -> None:
        """Register the events, unless the tracking server could not be reached at all."""
        if not self.failed:
            super().attach(engine)

    def start(self, engine: Engine) -> None:
        """Open the run and send the files that are there already."""
        self._guard(super().start, engine)
        self._guard(self._send_files)

    def epoch_completed(self, engine: Engine) -> None:
        """Send the metrics of an epoch."""
        self._guard(super().epoch_completed, engine)

    def iteration_completed(self, engine: Engine) -> None:
        """Send the metrics of an iteration."""
        self._guard(super().iteration_completed, engine)

    def complete(self) -> None:
        """Send the artifacts."""
        self._guard(super().complete)

    def close(self) -> None:
        """Close the run."""
        self._guard(super().close)

    def _send_files(self) -> None:
        run: Any = self.cur_run
        for path in self.artifacts:
            if path and os.path.isfile(path):
                self.client.log_artifact(run.info.run_id, path)

    def _guard(self, call: Callable, *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            call(*args, **kwargs)
        except Exception as error:  # whatever a server, a database or a missing package throws: training goes on
            self.failed = True
            logging.getLogger(__name__).warning(
                "MLflow tracking is off from here on, the run goes on without it: %s: %s", type(error).__name__, error
            )
