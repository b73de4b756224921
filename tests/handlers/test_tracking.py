# SPDX-License-Identifier: Apache-2.0
"""MLflow records the run, and no failure of it ends one."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine, Events

from metassl_monai.handlers import (
    SafeMLFlowHandler,
    SavedConfig,
    TrainingCheckpoint,
    TrainingPictures,
    TrainingStatistics,
    attach_to_run,
)
from metassl_monai.handlers.run_facts import data_fingerprints

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlruns.db'}"


def handler(uri: str, run_name: str = "run", **arguments: Any) -> SafeMLFlowHandler:
    return SafeMLFlowHandler(
        tracking_uri=uri,
        experiment_name="test",
        run_name=run_name,
        iteration_log=arguments.pop("iteration_log", False),
        close_on_complete=arguments.pop("close_on_complete", True),
        **arguments,
    )


def recorded(uri: str, run_name: str) -> tuple[Any, Any]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("test")
    [run] = [run for run in client.search_runs(experiment.experiment_id) if run.info.run_name == run_name]
    return client, run


def test_run_is_recorded_with_metrics_parameters_and_artifacts(
    database: str, make_run: Callable, tmp_path: Path
) -> None:
    artifact = tmp_path / "config.json"
    artifact.write_text("{}")
    tracking = handler(database, "good", artifacts=[str(artifact)], experiment_param={"preset": "paper"})
    run = make_run("cps", epochs=2, handlers=[TrainingStatistics(), tracking]).train()
    assert not tracking.failed
    client, stored = recorded(database, "good")
    assert stored.info.status == "FINISHED"
    assert stored.data.params["preset"] == "paper"
    assert stored.data.params["max_epochs"] == "2"
    assert set(stored.data.metrics) == set(run.trainer.state.metrics)
    for name, value in run.trainer.state.metrics.items():
        assert stored.data.metrics[name] == pytest.approx(value)
        assert [point.step for point in client.get_metric_history(stored.info.run_id, name)] == [1, 2]
    assert [file.path for file in client.list_artifacts(stored.info.run_id)] == ["config.json"]


def test_run_says_what_it_runs_with_and_on_and_on_which_data(database: str, make_run: Callable, tmp_path: Path) -> None:
    run, tracking = make_run("cps", epochs=1), handler(database, "facts")
    files = [tmp_path / f"{name}.nii.gz" for name in "ab"]
    for file in files:
        file.write_bytes(b"voxels")
    run.trainer.data_loader.streams["unlabeled"].dataset.data = [{"image": str(file)} for file in files]
    prints = data_fingerprints(run.trainer)
    assert prints["unlabeled"]["cases"] == 2
    files[0].write_bytes(b"other voxels")
    assert data_fingerprints(run.trainer)["unlabeled"]["digest"] != prints["unlabeled"]["digest"]
    engine = Engine(lambda engine, batch: None)
    engine.data_loader = run.trainer.data_loader  # type: ignore[attr-defined]
    engine.optimizer, engine.network = run.trainer.optimizer, run.trainer.network  # type: ignore[attr-defined]
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: engine.state.metrics.update(val_mean_dice=0.75))
    tracking.attach(engine)
    engine.run([1], max_epochs=1)
    assert not tracking.failed
    _, stored = recorded(database, "facts")
    params = stored.data.params
    assert (params["network"], params["optimizer"], params["learning_rate"]) == ("UNet2D", "Adam", "0.01")
    assert params["unlabeled_cases"] == "2"
    assert {"device", "python", "torch", "monai", "metassl_monai", "parameters"} <= set(params)
    (data,) = [entry.dataset for entry in stored.inputs.dataset_inputs]
    assert (data.name, json.loads(data.profile)) == ("unlabeled cases", {"cases": 2})
    assert stored.data.tags["mlflow.note.content"].startswith("**Validation at the last epoch**: val_mean_dice 0.750")
    assert stored.data.tags["mlflow.user"]


@pytest.mark.parametrize("run_name", ["Lauf 1: Vorhof (links) 50% / ü", "../../etc", "x" * 900, 7])
def test_odd_names_of_classes_runs_and_parameters_do_not_cost_the_tracking(
    run_name: Any, database: str, make_run: Callable
) -> None:
    odd = {"val_dice/Vorhof (links), 50%": 0.5, "val_dice/../x": 0.25, "val_dice//": 1.0, "loss/" + "y" * 400: 2.0}
    parameters = {"größe [mm]": "z" * 9000, "a;b": None}
    tracking = handler(database, run_name, experiment_param=parameters)
    run = make_run("supervised", epochs=1, handlers=[TrainingStatistics()], last_handlers=[tracking])
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: run.trainer.state.metrics.update(odd))
    run.train()
    assert not tracking.failed
    _, stored = recorded(database, str(run_name)[:250])
    assert stored.data.metrics["val_dice/Vorhof _links__ 50_"] == 0.5
    assert stored.data.metrics["0_validation/Vorhof _links__ 50_"] == 0.5
    assert min(stored.data.metrics).startswith("0_validation/")
    assert {0.25, 1.0, 2.0} <= set(stored.data.metrics.values())
    assert len(stored.data.params["größe _mm_"]) == 6000


def test_pictures_of_an_epoch_are_recorded_with_their_step(database: str, make_run: Callable, tmp_path: Path) -> None:
    pictures = TrainingPictures(tmp_path / "pictures", interval=2)
    tracking = handler(database, "pictures", artifacts=[str(tmp_path / "pictures")])
    make_run("supervised", epochs=3, handlers=[TrainingStatistics(), pictures], last_handlers=[tracking]).train()
    assert not tracking.failed
    client, stored = recorded(database, "pictures")
    names = [file.path for file in client.list_artifacts(stored.info.run_id, "images")]
    assert {name.partition("+timestamp")[0] for name in names} == {"images/epoch+step+2", "images/epoch+step+3"}


def test_load_of_the_machine_is_recorded_where_asked_for(
    database: str, make_run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = types.SimpleNamespace(start=lambda: calls.append("start"), finish=lambda: calls.append("finish"))
    calls: list[str] = []
    module = types.ModuleType("mlflow.system_metrics.system_metrics_monitor")
    module.SystemMetricsMonitor = lambda *arguments, **keywords: monitor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for asked in ("false", "true"):
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", asked)
        track(make_run, handler(database, f"load {asked}"), epochs=1, folder=asked).train()
        assert calls == (["start", "finish"] if asked == "true" else [])


def test_a_machine_whose_load_cannot_be_read_costs_one_warning_and_not_the_run(
    database: str, make_run: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setitem(sys.modules, "mlflow.system_metrics.system_metrics_monitor", None)
    tracking = handler(database, "no load")
    track(make_run, tracking, epochs=1).train()
    assert not tracking.failed
    _, stored = recorded(database, "no load")
    assert "loss" in stored.data.metrics
    (warning,) = warnings_of(caplog)
    assert "no load of the machine in MLflow" in warning


def test_files_made_later_are_attached_to_the_run_and_a_lost_server_is_a_warning(
    empty: str, make_run: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attach_to_run(tmp_path, [tmp_path / "cases.csv"], "evaluation")  # not tracked
    track(make_run, remembering(empty, tmp_path), epochs=1).train()
    (tmp_path / "cases.csv").write_text("case,dice")
    attach_to_run(tmp_path, [tmp_path / "cases.csv"], "evaluation")
    client, stored = recorded(empty, "some time")
    assert [it.path for it in client.list_artifacts(stored.info.run_id, "evaluation")] == ["evaluation/cases.csv"]
    assert stored.info.status == "FINISHED"
    assert warnings_of(caplog) == []
    (tmp_path / "mlflow_run.json").write_text(json.dumps({"tracking_uri": "http://127.0.0.1:9", "run_id": "x"}))
    attach_to_run(tmp_path, [tmp_path / "cases.csv"], "evaluation")
    (warning,) = warnings_of(caplog)
    assert "evaluation is not in MLflow" in warning


def test_iterations_are_recorded_where_asked_for(database: str, make_run: Callable) -> None:
    tracking = handler(database, "iterations", iteration_log=True, output_transform=lambda output: output[0]["loss"])
    make_run("supervised", epochs=1, handlers=[tracking]).train()
    client, stored = recorded(database, "iterations")
    history = client.get_metric_history(stored.info.run_id, "Loss")
    assert [point.step for point in history] == [1, 2, 3]
    assert not tracking.failed


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("metassl") and r.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        ("get_experiment_by_name", {"iteration_log": True}),
        ("create_run", {}),
        ("log_batch", {}),
        ("log_batch", {"iteration_log": True, "output_transform": lambda output: output[0]["loss"]}),
        ("log_artifact", {}),
        ("set_terminated", {}),
    ],
)
def test_failing_client_costs_one_warning_and_not_the_run(
    call: str,
    parts: dict[str, Any],
    database: str,
    make_run: Callable,
    differences: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = make_run("supervised", epochs=2, folder="plain", handlers=[TrainingStatistics()]).train()
    artifact = tmp_path / "config.json"
    artifact.write_text("{}")
    tracking = handler(database, f"failing {call} {len(parts)}", artifacts=[str(artifact)], **parts)
    calls: list[int] = []

    def fail(*arguments: Any, **keywords: Any) -> None:
        calls.append(1)
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(tracking.client, call, fail)
    run = make_run("supervised", epochs=2, folder="tracked", handlers=[TrainingStatistics(), tracking]).train()
    assert tracking.failed
    assert len(calls) == 1  # after the first failure nothing more is sent
    [warning] = warnings_of(caplog)
    assert "the run goes on without it" in warning
    assert "ConnectionError: the server is gone" in warning
    assert differences(plain.state(), run.state()) == []


@pytest.mark.parametrize("uri", ["no-such-scheme://server", "sqlite:///{file}/mlruns.db", "file://{file}"])
def test_invalid_server_costs_one_warning_and_not_the_run(
    uri: str, make_run: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("where a folder would have to be")
    tracking = handler(uri.format(file=tmp_path / "file"))
    run = make_run("supervised", epochs=1, handlers=[TrainingStatistics(), tracking]).train()
    assert tracking.failed
    assert len(warnings_of(caplog)) == 1
    assert run.trainer.state.iteration == 3
    tracking.close()  # what a bundle's finalize may call


def test_unreachable_server_costs_one_warning_and_not_the_run(
    make_run: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = handler("http://127.0.0.1:9")
    run = make_run("supervised", epochs=1, handlers=[TrainingStatistics(), tracking]).train()
    assert tracking.failed
    assert len(warnings_of(caplog)) == 1
    assert run.trainer.state.iteration == 3


@pytest.fixture
def silent_server() -> Any:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_holds_a_training_for_its_first_request_alone(
    silent_server: str,
    make_run: Callable,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    start = time.monotonic()
    run = track(make_run, remembering(silent_server, tmp_path), epochs=2)
    remembering(silent_server, tmp_path, True, close_on_complete=False).attach(run.evaluator)
    run.train()
    assert 4 < time.monotonic() - start < 20  # two tries of 2 s, a pause between them and the training
    assert run.trainer.state.epoch == 2
    assert len(warnings_of(caplog)) == 1
    assert "MLflow tracking is off from here on" in warnings_of(caplog)[0]
    start = time.monotonic()
    track(make_run, remembering(silent_server, tmp_path), epochs=3, folder="again").train()
    assert time.monotonic() - start < 4
    assert "has failed a short time ago" in warnings_of(caplog)[1]


def test_time_limits_are_set_where_the_user_has_set_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")
    for given, expected in ((("7", "77"), ["7", "77"]), (None, ["2", "10"])):
        for name, value in zip(names, given or ("", ""), strict=True):
            monkeypatch.setenv(name, value)
            if given is None:
                monkeypatch.delenv(name)
        handler("http://127.0.0.1:9")
        assert [os.environ[name] for name in names] == expected


def test_interrupt_is_not_swallowed(database: str, make_run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = handler(database, "interrupted")

    def interrupt(*arguments: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.client, "log_batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_run("supervised", epochs=1, handlers=[TrainingStatistics(), tracking]).train()


def test_an_interrupted_run_has_its_config(database: str, make_run: Callable, tmp_path: Path) -> None:
    saved = SavedConfig(tmp_path / "new" / "config_1.json", {"device": object(), "seed": 3})
    tracking = handler(database, "with config", artifacts=[str(saved.path), str(tmp_path / "absent")])
    assert not saved.path.parent.exists()

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    run = make_run("supervised", epochs=1, handlers=[saved, tracking])
    run.trainer.add_event_handler(Events.EPOCH_STARTED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    config = json.loads(saved.path.read_text())
    assert json.loads((saved.path.parent / "environment.json").read_text())["network"] == "UNet2D"
    assert config["seed"] == 3
    assert config["device"].startswith("<object")
    client, stored = recorded(database, "with config")
    assert [file.path for file in client.list_artifacts(stored.info.run_id)] == ["config_1.json"]


def test_no_config_writes_no_file(make_run: Callable, tmp_path: Path) -> None:
    make_run("supervised", epochs=1, handlers=[SavedConfig(tmp_path / "config_1.json", None)]).train()
    assert not (tmp_path / "config_1.json").exists()


def remembering(uri: str, folder: Path, resume: bool = False, run_name: str = "some time", **arguments: Any) -> Any:
    return handler(uri, run_name, run_file=folder / "mlflow_run.json", resume=resume, **arguments)


def track(make_run: Callable, tracking: Any, name: str = "supervised", **arguments: Any) -> Any:
    return make_run(name, handlers=[TrainingStatistics()], last_handlers=[tracking], **arguments)


def runs_of(uri: str) -> list[tuple[str, list[int]]]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return [(r.info.status, [m.step for m in client.get_metric_history(r.info.run_id, "loss")]) for r in runs]


@pytest.fixture
def empty(database: str) -> str:
    """A database without runs."""
    client = mlflow.MlflowClient(tracking_uri=database)
    for run in client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]):
        client.delete_run(run.info.run_id)
    return database


def test_a_resumed_training_goes_on_in_its_own_run(empty: str, make_run: Callable, tmp_path: Path) -> None:
    track(make_run, remembering(empty, tmp_path, experiment_param={"iterations": 3}), epochs=1).train()
    longer = remembering(empty, tmp_path, True, "a later time", experiment_param={"iterations": 9})
    track(make_run, longer, epochs=3, resume=True).train()
    assert not longer.failed
    assert runs_of(empty) == [("FINISHED", [1, 2, 3])]


def test_resuming_a_finished_training_adds_nothing(empty: str, make_run: Callable, tmp_path: Path) -> None:
    for resume in (False, True, True):
        track(make_run, remembering(empty, tmp_path, resume), epochs=2, resume=resume).train()
    assert runs_of(empty) == [("FINISHED", [1, 2])]


def test_a_killed_run_is_taken_over_and_no_epoch_is_logged_twice(
    empty: str, make_run: Callable, tmp_path: Path
) -> None:
    """Of three epochs two are in the last checkpoint, so the third one is done again."""
    run = track(make_run, remembering(empty, tmp_path, close_on_complete=False), epochs=4, interval=2)

    def kill() -> None:
        raise KeyboardInterrupt

    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=4), kill)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert runs_of(empty) == [("RUNNING", [1, 2, 3])]
    track(make_run, remembering(empty, tmp_path, True, "a later time"), epochs=4, resume=True).train()
    assert runs_of(empty) == [("FINISHED", [1, 2, 3, 4])]


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_training_killed_after_a_checkpoint_lacks_no_epoch_and_is_finished(
    epoch: int, empty: str, make_run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a bundle the tracking comes after the checkpoint, which has the epoch already."""

    def saved_and_killed(self: TrainingCheckpoint, engine: Any) -> None:
        save(self, engine)
        if engine.state.epoch == epoch:
            raise KeyboardInterrupt

    def start(resume: bool) -> Any:
        tracking = remembering(empty, tmp_path, resume, f"resume {resume}", close_on_complete=resume)
        return make_run("supervised", 3, handlers=[TrainingStatistics()], last_handlers=[tracking], resume=resume)

    save = TrainingCheckpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(TrainingCheckpoint, "save", saved_and_killed)
        with pytest.raises(KeyboardInterrupt):
            start(False).train()
    assert runs_of(empty) == [("RUNNING", [*range(1, epoch + 1)])]
    start(True).train()
    assert runs_of(empty) == [("FINISHED", [1, 2, 3])]


def test_a_training_killed_at_its_start_has_one_run(
    empty: str, make_run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.tracking.MlflowClient, "log_batch", kill)
        with pytest.raises(KeyboardInterrupt):
            track(make_run, remembering(empty, tmp_path, close_on_complete=False), epochs=1).train()
    track(make_run, remembering(empty, tmp_path, True, "a later time"), epochs=1, resume=True).train()
    assert runs_of(empty) == [("FINISHED", [1])]


def test_a_training_that_starts_anew_in_the_folder_has_a_run_of_its_own(
    empty: str, make_run: Callable, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        track(make_run, remembering(empty, tmp_path, False, name), epochs=1).train()
    assert runs_of(empty) == [("FINISHED", [1])] * 2


def test_trainer_and_validator_share_the_remembered_run(empty: str, make_run: Callable, tmp_path: Path) -> None:
    for resume in (False, True):
        tracking = remembering(empty, tmp_path, resume, f"resume {resume}")
        run = track(make_run, tracking, epochs=1 + resume, resume=resume)
        SafeMLFlowHandler(
            tracking_uri=empty,
            experiment_name="test",
            run_name=f"resume {resume}",
            run_file=tmp_path / "mlflow_run.json",
            resume=True,
            iteration_log=False,
        ).attach(run.evaluator)
        run.train()
    client = mlflow.MlflowClient(tracking_uri=empty)
    [run] = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [[m.step for m in client.get_metric_history(run.info.run_id, key)] for key in ("loss", "dice")] == [
        [1, 2]
    ] * 2


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(143), "KILLED")]
)
def test_a_run_that_ends_early_says_so(
    error: BaseException, status: str, empty: str, make_run: Callable, tmp_path: Path
) -> None:
    run = track(make_run, remembering(empty, tmp_path), epochs=3)

    def end() -> None:
        raise error

    run.trainer.add_event_handler(Events.EPOCH_STARTED(once=2), end)
    with pytest.raises(type(error)) as caught:
        run.train()
    assert caught.value is error
    assert runs_of(empty) == [(status, [1])]


def test_the_run_goes_on_in_its_database_from_another_folder(
    make_run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, resume in (("here", False), ("there", True)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        uri = f"sqlite:///{tmp_path / folder / 'mlruns.db'}"
        track(make_run, remembering(uri, tmp_path, resume), epochs=1 + resume, resume=resume).train()
    assert runs_of(f"sqlite:///{tmp_path / 'here' / 'mlruns.db'}") == [("FINISHED", [1, 2])]
    assert not (tmp_path / "there" / "mlruns.db").exists()


def test_a_later_evaluation_leaves_the_run_of_the_training_alone(
    empty: str, make_run: Callable, tmp_path: Path
) -> None:
    run = track(make_run, remembering(empty, tmp_path), epochs=1).train()
    remembering(empty, tmp_path, True, "evaluation", close_on_complete=False).attach(run.evaluator)
    run.evaluator.run()
    _, stored = recorded(empty, "some time")
    assert stored.info.status == "FINISHED"
    _, stored = recorded(empty, "evaluation")
    assert "dice" in stored.data.metrics


def open_and_close(uri: str, number: int) -> None:
    tracking = handler(uri, f"run {number}")
    tracking.start(Engine(lambda engine, batch: None))
    tracking.close()
    sys.exit(int(tracking.failed))


def test_processes_that_open_a_new_database_together_are_all_tracked(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlruns.db'}"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=open_and_close, args=(uri, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [status for status, _ in runs_of(uri)] == ["FINISHED"] * 3
