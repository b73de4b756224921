# SPDX-License-Identifier: Apache-2.0
"""A resumed run equals the uninterrupted one, and no file is ever half written or made worse."""

from __future__ import annotations

import io
import itertools
import logging
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events

from metassl_monai.finite import NotFiniteError
from metassl_monai.handlers import BestNetwork, LastNetwork, SeedEachEpoch, TrainingCheckpoint
from metassl_monai.handlers.checkpoint import CheckpointError
from metassl_monai.networks import UNet2D

FP16 = {"amp": True, "amp_kwargs": {"dtype": torch.float16}}


def halves(make_run: Callable, name: str, **arguments: Any) -> Any:
    """Two epochs, then two more in a new run that starts from other weights."""
    make_run(name, epochs=2, folder="halves", **arguments).train()
    return make_run(name, folder="halves", resume=True, weights_seed=50, **arguments)


def count_iterations(run: Any) -> list[int]:
    done: list[int] = []
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: done.append(engine.state.iteration))
    return done


@pytest.mark.parametrize("kind", ["metassl", "own"])
@pytest.mark.parametrize("name", ["supervised", "mean_teacher", "cps"])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    name: str, kind: str, make_run: Callable, differences: Callable
) -> None:
    whole = make_run(name, kind=kind).train()
    resumed = halves(make_run, name, kind=kind).train()
    assert differences(whole.state(), resumed.state()) == []
    assert whole.state()["position"] == (4, 12)


def test_resumed_run_equals_the_uninterrupted_one_with_workers(make_run: Callable, differences: Callable) -> None:
    whole = make_run("cps", workers=2).train()
    assert differences(whole.state(), halves(make_run, "cps", workers=2).train().state()) == []


def test_resumed_run_equals_the_uninterrupted_one_with_loss_scaling(make_run: Callable, differences: Callable) -> None:
    whole = make_run("mean_teacher", **FP16).train()
    resumed = halves(make_run, "mean_teacher", **FP16).train()
    assert whole.state()["scaler"]["_growth_tracker"] == 12
    assert differences(whole.state(), resumed.state()) == []


def test_resumed_run_equals_the_uninterrupted_one_with_accumulation(make_run: Callable, differences: Callable) -> None:
    whole = make_run("mean_teacher", accumulation_steps=2).train()
    assert differences(whole.state(), halves(make_run, "mean_teacher", accumulation_steps=2).train().state()) == []


def test_comparison_of_runs_sees_what_is_random(make_run: Callable, differences: Callable) -> None:
    """The tests above would fail without seeding, and with another seed."""
    whole = make_run("mean_teacher").train().state()
    assert differences(whole, make_run("mean_teacher", folder="again").train().state()) == []
    unseeded = make_run("mean_teacher", seed=None, folder="a").train().state()
    resumed = halves(make_run, "mean_teacher", seed=None).train().state()
    assert any(path.startswith("/method/network") for path in differences(unseeded, resumed))
    other = make_run("mean_teacher", seed=1, folder="b").train().state()
    found = differences(whole, other)
    for part in ("/method/network", "/method/teacher", "/method/labeled_losses", "/method/unlabeled_losses"):
        assert any(path.startswith(part) for path in found)
    assert any(path.startswith("/optimizer/state") for path in found)


def test_epochs_draw_different_random_numbers(make_run: Callable) -> None:
    run = make_run("supervised")
    seen: list[Any] = []
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: seen.append(torch.stack([item["image"] for item in e.state.output]))
    )
    run.train()
    assert not any(a.equal(b) for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize("name", ["supervised", "mean_teacher", "cps"])
def test_checkpoint_is_read_without_unpickling_code_and_holds_the_whole_method(name: str, make_run: Callable) -> None:
    run = make_run(name, epochs=2).train()
    checkpoint = torch.load(run.folder / "checkpoint.pt", weights_only=True)
    assert set(checkpoint) == {"method", "optimizer", "lr_scheduler", "scaler", "evaluator", "epoch", "iteration"}
    assert (checkpoint["epoch"], checkpoint["iteration"]) == (2, 6)
    assert list(checkpoint["method"]) == list(run.method.state_dict())
    assert any(key.endswith("threshold.values") for key in checkpoint["method"])


@pytest.mark.parametrize("number", [np.float32, np.float64, torch.tensor, float])
def test_best_metric_of_any_number_type_can_be_saved_and_resumed(
    number: Callable, make_run: Callable, scripted_metric: type
) -> None:
    values = {epoch: number(value) for epoch, value in enumerate((0.25, 0.75, 0.5, 0.625), start=1)}
    run = halves(make_run, "supervised", metric=scripted_metric(values)).train()
    assert run.evaluator.state.best_metric == 0.75
    assert run.evaluator.state.best_metric_epoch == 2


def test_resumed_run_does_not_overwrite_a_better_model_with_a_worse_one(
    make_run: Callable, scripted_metric: type, differences: Callable
) -> None:
    metric = scripted_metric({1: 0.2, 2: 0.9, 3: 0.5, 4: 0.6})
    resumed = halves(make_run, "mean_teacher", metric=metric)
    best = torch.load(resumed.folder / "model.pt", weights_only=True)
    resumed.train()
    assert differences(torch.load(resumed.folder / "model.pt", weights_only=True), best) == []
    assert differences(resumed.method.network.state_dict(), best) != []


def test_resumed_run_overwrites_the_model_with_a_better_one(
    make_run: Callable, scripted_metric: type, differences: Callable
) -> None:
    resumed = halves(make_run, "mean_teacher", metric=scripted_metric({1: 0.2, 2: 0.5, 3: 0.3, 4: 0.6})).train()
    model = torch.load(resumed.folder / "model.pt", weights_only=True)
    assert differences(model, dict(resumed.method.network.state_dict())) == []


def test_best_network_is_written_on_improvement_alone(make_run: Callable, scripted_metric: type) -> None:
    values = dict(enumerate((0.3, 0.2, 0.3, 0.4), start=1))
    run = make_run("supervised", metric=scripted_metric(values))
    model = run.folder / "model.pt"
    contents: list[bytes] = []
    run.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: contents.append(model.read_bytes()))
    run.train()
    assert [b == a for a, b in itertools.pairwise(contents)] == [True, True, False]
    assert run.evaluator.state.best_metric_epoch == 4


def test_best_network_is_a_flat_state_dict_for_the_network_of_inference(make_run: Callable) -> None:
    run = make_run("cps", epochs=1).train()
    state = torch.load(run.folder / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    network = UNet2D(1, 3, features=(4, 8), dropout=(0.2, 0.3))
    network.load_state_dict(state, strict=True)
    assert all(value.equal(state[key]) for key, value in run.method.network.state_dict().items())


def test_without_resume_an_old_checkpoint_is_not_read(make_run: Callable, differences: Callable) -> None:
    first = make_run("supervised", epochs=2).train().state()
    again = make_run("supervised", epochs=2)
    iterations = count_iterations(again)
    assert differences(first, again.train().state()) == []
    assert len(iterations) == 6


def test_resume_without_a_checkpoint_starts_anew(make_run: Callable, differences: Callable) -> None:
    fresh = make_run("supervised", epochs=2, folder="a").train()
    resumed = make_run("supervised", epochs=2, folder="b", resume=True).train()
    assert differences(fresh.state(), resumed.state()) == []


def test_resuming_a_finished_run_trains_nothing(make_run: Callable, differences: Callable) -> None:
    done = make_run("mean_teacher").train()
    again = make_run("mean_teacher", resume=True, weights_seed=50)
    iterations = count_iterations(again)
    again.train()
    assert differences(dict(done.method.state_dict()), dict(again.method.state_dict())) == []
    assert again.trainer.state.epoch == 4
    assert iterations == []


def test_resume_is_logged_with_file_and_epoch(make_run: Callable, caplog: pytest.LogCaptureFixture) -> None:
    resumed = halves(make_run, "supervised")
    with caplog.at_level(logging.INFO, logger="metassl_monai"):
        resumed.train()
    assert f"resumed from {resumed.folder / 'checkpoint.pt'} after epoch 2" in caplog.text


@pytest.mark.parametrize(("interval", "epochs", "saved"), [(2, 4, [2, 4]), (3, 4, [3, 4]), (9, 2, [2])])
def test_checkpoint_follows_the_interval_and_the_last_epoch_is_always_saved(
    interval: int, epochs: int, saved: list[int], make_run: Callable
) -> None:
    run = make_run("supervised", epochs=epochs, interval=interval)
    file = run.folder / "checkpoint.pt"
    found: list[int] = []

    def look() -> None:
        if file.exists():
            found.append(torch.load(file, weights_only=True)["epoch"])

    run.trainer.add_event_handler(Events.EPOCH_COMPLETED, look)
    run.train()
    assert sorted(set(found)) == saved


@pytest.mark.parametrize(("second", "file"), [(0.4, "checkpoint.pt"), (0.6, "model.pt")])
def test_crash_while_saving_leaves_the_old_files_and_no_other(
    second: float, file: str, make_run: Callable, scripted_metric: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a second epoch that is worse the checkpoint is written first, in one that is better the model."""
    metric = scripted_metric({1: 0.5, 2: second})
    run = make_run("supervised", epochs=1, metric=metric).train()
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    begun: list[bytes] = []

    def crash(content: Any, stream: io.IOBase) -> None:
        stream.write(b"half of a")
        stream.flush()
        begun.append((run.folder / file).read_bytes())
        raise OSError(f"no space left for {'checkpoint.pt' if 'method' in content else 'model.pt'}")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match=f"no space left for {file}"):
        make_run("supervised", epochs=2, resume=True, metric=metric).train()
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
    assert begun == [before[file]]


def test_persistent_workers_are_refused() -> None:
    class Loader:
        persistent_workers = True

    class Paired:
        streams = {"labeled": Loader()}

    with pytest.raises(ValueError, match="persistent_workers cannot be reseeded"):
        SeedEachEpoch(0, Paired())


def test_seed_sets_the_epoch_of_the_paired_loader(make_run: Callable) -> None:
    run = make_run("supervised", epochs=3)
    epochs: list[int] = []
    run.trainer.data_loader.set_epoch = epochs.append
    run.train()
    assert epochs == [1, 2, 3]


def test_weights_that_are_not_finite_are_never_saved(make_run: Callable) -> None:
    run = make_run("mean_teacher", epochs=2).train()
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    next(run.method.network.parameters()).data.fill_(float("nan"))
    pretrained = LastNetwork(run.folder / "pretrained.pt", run.method.network, {"seed": 1})
    best = BestNetwork(run.folder / "model.pt", run.method.network)
    checkpoint = TrainingCheckpoint(run.folder / "checkpoint.pt", {"method": run.method}, run.evaluator)
    run.evaluator.state.best_metric_epoch = run.evaluator.state.epoch
    for save in (pretrained.save, lambda: best.save(run.evaluator), lambda: checkpoint.save(run.trainer)):
        with pytest.raises(NotFiniteError, match="weights are not finite"):
            save()
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_one_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip_one_bit, lambda content: b"", lambda content: b"no checkpoint"])
def test_a_damaged_checkpoint_is_refused_by_name(damage: Callable, make_run: Callable) -> None:
    run = make_run("supervised", epochs=1).train()
    file = run.folder / "checkpoint.pt"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: is damaged, or no checkpoint") as caught:
        make_run("supervised", epochs=2, resume=True).train()
    assert caught.value.__cause__ is None


def test_a_file_that_is_no_checkpoint_is_refused_by_name(make_run: Callable) -> None:
    run = make_run("supervised", epochs=1).train()
    (run.folder / "checkpoint.pt").write_bytes((run.folder / "model.pt").read_bytes())
    with pytest.raises(CheckpointError, match="is not the checkpoint of a training"):
        make_run("supervised", epochs=2, resume=True).train()


def test_a_checkpoint_of_another_method_is_refused_without_a_record_too(make_run: Callable) -> None:
    make_run("cps", epochs=1).train()
    with pytest.raises(CheckpointError, match="does not fit this run"):
        make_run("supervised", epochs=2, resume=True).train()


def test_a_checkpoint_that_was_made_with_something_else_is_refused(make_run: Callable) -> None:
    made = {"seed": 1, "epochs": 1, "train::dataset::data": ["a.nii"]}
    run = make_run("supervised", epochs=1, record=made).train()
    before = (run.folder / "checkpoint.pt").read_bytes()
    asked = {"seed": 2, "epochs": 2, "train::dataset::data": ["b.nii"]}
    told = "labeled cases: now with b.nii, now without a.nii; seed is 2 and was 1. Resume with"
    with pytest.raises(CheckpointError, match=told):
        make_run("supervised", epochs=2, resume=True, record=asked).train()
    assert (run.folder / "checkpoint.pt").read_bytes() == before


def test_a_longer_training_with_the_same_record_goes_on(make_run: Callable, caplog: pytest.LogCaptureFixture) -> None:
    make_run("supervised", epochs=1, record={"seed": 1, "epochs": 1}).train()
    longer = make_run("supervised", epochs=3, resume=True, record={"seed": 1, "epochs": 3}).train()
    assert longer.trainer.state.epoch == 3
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_checkpoint_without_a_record_is_resumed_with_a_warning(
    make_run: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    make_run("supervised", epochs=1).train()
    run = make_run("supervised", epochs=2, resume=True, record={"seed": 1}).train()
    assert run.trainer.state.epoch == 2
    assert "does not say what it was made with" in caplog.text


def test_signals_belong_to_the_program_again_when_a_training_is_complete(make_run: Callable) -> None:
    before = signal.getsignal(signal.SIGTERM)  # not SIGINT, which a background job ignores
    during: list[Any] = []
    run = make_run("supervised", epochs=1)
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: during.append(signal.getsignal(signal.SIGTERM))
    )
    run.train()
    assert signal.getsignal(signal.SIGTERM) is before
    assert before not in during


def test_a_signal_stops_a_training_after_the_iteration(make_run: Callable, capsys: pytest.CaptureFixture) -> None:
    run = make_run("supervised", epochs=4)
    run.trainer.add_event_handler(Events.ITERATION_STARTED(once=5), lambda engine: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stopped:
            run.train()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert run.trainer.state.iteration == 5
    assert "checkpoint.pt holds epoch 1 of 4: the same command with --resume True" in capsys.readouterr().err
