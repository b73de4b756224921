# SPDX-License-Identifier: Apache-2.0
"""MLflow tracking that cannot end a training run, and goes on where a resumed training does."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler
from monai.utils import flatten_dict, path_to_sqlite_uri
from PIL import Image

from .attached import set_time_limits
from .checkpoint import SAVING
from .run_facts import data_fingerprints, run_facts
from .termination import stop_at_safe_points
from .tracked_facts import (
    LONGEST_NAME,
    accepted,
    accepted_text,
    data_inputs,
    description,
    first_section,
    pictures_of,
    system_monitor,
)
from .tracked_run import TrackedRun, opening

__all__ = ["SafeMLFlowHandler"]

_logger = logging.getLogger(__name__)

_ASK_AGAIN = 600.0
_failed_at: dict[str, float] = {}  # seconds by server


class SafeMLFlowHandler(MLFlowHandler):
    """MONAI's ``MLFlowHandler``, whose failures are one warning: a lost server costs the tracking, not the training.

    After the first failure nothing more is sent. Artifacts that are files are sent when the run starts, too, so that
    an interrupted run has its config. A request is tried three times of 10 s, unless
    ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` and ``MLFLOW_HTTP_REQUEST_TIMEOUT`` say otherwise: MLflow's own eight tries of
    two minutes would hold the training up. A server that has failed is not asked again within ten minutes, so that the
    handlers of trainer and validator do not both wait for it. Processes that open one SQLite file wait for each other.

    Names are written as MLflow takes them. Pictures of an epoch in folders of ``artifacts``, ``<name>_<epoch>.png``,
    are sent with their step. The load of the machine is sent where the environment asks for it by MLflow's own
    ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true``.

    With ``close_on_complete`` the run gets what it runs with and on, see :func:`run_facts`, as parameters, its cases as
    data sets, and a description that begins with the validation. It is marked as failed when it ends by an exception,
    and as killed when it is interrupted or terminated. An epoch is sent before its checkpoint is written, since a
    training that is killed in between would not do it again.

    Args:
        run_file: JSON file that remembers the run, beside the checkpoint; ``None`` remembers nothing.
        resume: go on in the run that ``run_file`` names; one that is finished already is left as it is.
        kwargs: the arguments of ``monai.handlers.MLFlowHandler``.
    """

    def __init__(self, run_file: str | Path | None = None, resume: bool = False, **kwargs: Any) -> None:
        set_time_limits()
        self.failed = False
        self.repeating = False
        self.sent: int | None = None
        self.place = ""
        self.remembered = TrackedRun(run_file) if run_file is not None else None
        self.resume = resume
        self.monitor: Any = None
        self.facts: dict[str, Any] = {}
        kwargs |= {
            name: str(kwargs[name])[:LONGEST_NAME]
            for name in ("run_name", "experiment_name")
            if kwargs.get(name) is not None
        }
        if self.remembered is not None and resume:
            kwargs["tracking_uri"] = self.remembered.place(kwargs.get("tracking_uri"))
        self._guard(self._open, kwargs)

    def _open(self, kwargs: dict[str, Any]) -> None:
        if find_spec("mlflow") is None:
            raise ModuleNotFoundError("MLflow is not installed: pip install mlflow")
        default = path_to_sqlite_uri(os.path.abspath("mlruns.db"))  # as MONAI's
        self.place = os.environ.get("MLFLOW_TRACKING_URI") or kwargs.get("tracking_uri") or default
        with opening(self.place):
            super().__init__(**kwargs)

    def attach(self, engine: Engine) -> None:
        """Register the events, unless the tracking server could not be reached at all."""
        if not self.failed:
            super().attach(engine)
            if self.epoch_log is True and engine.has_registered_events(SAVING):
                engine.add_event_handler(SAVING, self.send_before_saving)
            if self.close_on_complete:
                engine.add_event_handler(Events.EXCEPTION_RAISED, self.end_early)

    def start(self, engine: Engine) -> None:
        """Open the run and send the files that are there already."""
        if time.monotonic() - _failed_at.get(self.place, -_ASK_AGAIN) < _ASK_AGAIN:
            self.failed = True
            if self.close_on_complete:  # the training's own handler, at the start of a later run
                _logger.warning("MLflow tracking is off for this run: %s has failed a short time ago", self.place)
            return
        complete = engine.state.max_epochs is not None and engine.state.epoch >= engine.state.max_epochs and self.resume
        self._guard(self._close_left_open if complete else self._start, engine)
        self._guard(self._send_files)

    def epoch_completed(self, engine: Engine) -> None:
        """Send the metrics of an epoch, unless the run has them from before it was interrupted."""
        if engine.state.epoch != self.sent:
            self._guard(self._epoch_completed, engine)

    def send_before_saving(self, engine: Engine) -> None:
        """Send the metrics of an epoch whose checkpoint is about to be written."""
        self.epoch_completed(engine)
        self.sent = engine.state.epoch

    def iteration_completed(self, engine: Engine) -> None:
        """Send the metrics of an iteration."""
        self._guard(super().iteration_completed, engine)

    def complete(self) -> None:
        """Send the artifacts."""
        self._guard(super().complete)
        if self.close_on_complete:
            self._guard(self._send_description)

    def close(self) -> None:
        """Close the run."""
        if self.monitor is not None:
            self._guard(self.monitor.finish)
            self.monitor = None
        self._guard(super().close)

    def end_early(self, engine: Engine, error: BaseException) -> NoReturn:
        """Mark the run as failed or killed and let the exception go on."""
        self.run_finish_status = "FAILED" if isinstance(error, Exception) else "KILLED"
        self.close()
        raise error

    def _start(self, engine: Engine) -> None:
        if self.remembered is not None and not self.cur_run:
            self._join()
        super().start(engine)
        if self.close_on_complete:
            stop_at_safe_points(engine)
            self._send_facts(engine)

    def _send_facts(self, engine: Engine) -> None:
        from mlflow.tracking.context.registry import resolve_tags

        run: Any = self.cur_run
        known = run.inputs.dataset_inputs if run.inputs else []
        self.facts = run_facts(engine)
        new = dict(self.facts)
        self._delete_exist_param_in_dict(new)
        self._log_params(new)
        for name, value in {**resolve_tags(), "mlflow.source.git.commit": new.get("git_commit", "")}.items():
            if value:
                self.client.set_tag(run.info.run_id, name, value)
        if not known:
            self.client.log_inputs(run.info.run_id, datasets=data_inputs(data_fingerprints(engine)))
        self.monitor = system_monitor(run.info.run_id, self.place, self.resume)

    def _send_description(self) -> None:
        if self.cur_run is not None:
            run = self.client.get_run(self.cur_run.info.run_id)
            scores = {name: value for name, value in run.data.metrics.items() if name.startswith("val_")}
            note = accepted_text(description(self.facts, dict(sorted(scores.items(), reverse=True))))
            self.client.set_tag(run.info.run_id, "mlflow.note.content", note)

    def _log_params(self, params: dict[str, Any]) -> None:
        """Remember the run first: the start logs parameters as soon as it has one."""
        if self.remembered is not None:
            self.remembered.write(self.place, self.cur_run.info.run_id)  # type: ignore[attr-defined]
        super()._log_params({accepted(name): accepted_text(value) for name, value in params.items()})

    def _log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        named = {accepted(name): value for name, value in flatten_dict(metrics).items()}
        super()._log_metrics({**first_section(named), **named}, step)

    def _close_left_open(self, engine: Engine) -> None:
        """Take the run of a training that was killed when its last epoch was done; a finished one is left alone."""
        run = self.remembered.find(self.client, self.place) if self.remembered is not None else None
        if run is not None and run.info.status == "RUNNING":
            self.cur_run = run

    def _join(self) -> None:
        """Take the run that is remembered, or forget it."""
        if not self.resume:
            self.remembered.forget()  # type: ignore[union-attr]
            return
        run = self.remembered.find(self.client, self.place)  # type: ignore[union-attr]
        # the validator's handler does not close a run, so it joins its trainer's alone
        if run is None or not (self.close_on_complete or run.info.status == "RUNNING"):
            return
        self.cur_run, self.repeating = run, True
        self.client.update_run(run.info.run_id, status="RUNNING")
        # MLflow refuses another value of a parameter, such as more iterations
        self.experiment_param = dict(self.experiment_param or {})
        self._delete_exist_param_in_dict(self.experiment_param)

    def _set_experiment(self) -> None:
        with opening(self.place):
            parent: Any = super()
            parent._set_experiment()

    def _epoch_completed(self, engine: Engine) -> None:
        self.repeating = self.repeating and self._has(engine.state.epoch, engine.state.metrics)
        if self.cur_run is not None and not self.repeating:
            super().epoch_completed(engine)
            self._send_pictures(engine.state.epoch)

    def _send_pictures(self, epoch: int) -> None:
        run: Any = self.cur_run
        for name, file in pictures_of(self.artifacts, epoch).items():
            with Image.open(file) as picture:
                self.client.log_image(run.info.run_id, picture.convert("RGB"), key=name, step=epoch)

    def _has(self, epoch: int, metrics: dict[str, Any]) -> bool:
        known: Any = self.cur_run
        name = next(iter(metrics), None)
        return name is not None and any(
            point.step >= epoch for point in self.client.get_metric_history(known.info.run_id, name)
        )

    def _send_files(self) -> None:
        run: Any = self.cur_run
        for path in self.artifacts if run else ():
            if path and os.path.isfile(path):
                self.client.log_artifact(run.info.run_id, path)

    def _guard(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.failed:
            return
        try:
            call(*args, **kwargs)
        except Exception as error:  # whatever a server, a database or a missing package throws: training goes on
            self.failed = True
            if self.place.startswith("http"):
                _failed_at[self.place] = time.monotonic()
            _logger.warning(
                "MLflow tracking is off from here on, the run goes on without it: %s: %s", type(error).__name__, error
            )
