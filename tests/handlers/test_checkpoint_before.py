# SPDX-License-Identifier: Apache-2.0
"""A training whose newest checkpoint is damaged goes on from the one before, and ends as if nothing had happened."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metassl_monai.handlers import History, TrainingCheckpoint, TrainingStatistics
from metassl_monai.handlers.checkpoint_file import CheckpointError

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:2000] + bytes([content[2000] ^ 1]) + content[2001:],
    "empty": lambda content: b"",
    "garbage": lambda content: b"no checkpoint",
}
BEST_EARLY = {1: 0.2, 2: 0.9, 3: 0.5, 4: 0.6}
BEST_IN_THE_DAMAGED_EPOCH = {1: 0.2, 2: 0.5, 3: 0.9, 4: 0.6}
BEST_LATE = {1: 0.2, 2: 0.5, 3: 0.3, 4: 0.6}


def train(make_run: Callable, folder: Path, **arguments: Any) -> Any:
    history = History(folder / "history.csv")
    return make_run("mean_teacher", folder=folder.name, handlers=[TrainingStatistics(), history], **arguments).train()


def epochs(folder: Path) -> dict[str, int]:
    return {path.name: torch.load(path, weights_only=True)["epoch"] for path in folder.glob("checkpoint*.pt")}


def damage(path: Path, kind: str = "cut") -> None:
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_newest_two_are_kept(make_run: Callable) -> None:
    run = make_run("supervised", epochs=1).train()
    assert epochs(run.folder) == {"checkpoint.pt": 1}
    run = make_run("supervised", epochs=3, resume=True).train()
    assert epochs(run.folder) == {"checkpoint.pt": 3, "checkpoint_previous.pt": 2}


@pytest.mark.parametrize("values", [BEST_EARLY, BEST_IN_THE_DAMAGED_EPOCH, BEST_LATE])
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_newest_checkpoint_costs_one_epoch_and_changes_nothing(
    kind: str,
    values: dict[int, float],
    make_run: Callable,
    scripted_metric: type,
    differences: Callable,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    metric = scripted_metric(values)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = train(make_run, whole, metric=metric).state()
    train(make_run, broken, metric=metric, epochs=3)
    damage(broken / "checkpoint.pt", kind)
    caplog.clear()
    resumed = train(make_run, broken, metric=metric, resume=True, weights_seed=50).state()
    assert differences(expected, resumed) == []
    assert (whole / "history.csv").read_bytes() == (broken / "history.csv").read_bytes()
    (told,) = warnings(caplog)
    assert told.startswith(f"{broken / 'checkpoint.pt'}: is damaged, or no checkpoint (")
    assert told.endswith(f"the training goes on from {broken / 'checkpoint_previous.pt'}, after epoch 2")


def test_another_file_in_its_place_is_told_as_such(make_run: Callable, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run("supervised", epochs=2).train()
    (run.folder / "checkpoint.pt").write_bytes((run.folder / "model.pt").read_bytes())
    make_run("supervised", epochs=2, resume=True).train()
    (told,) = warnings(caplog)
    assert "checkpoint.pt: is not the checkpoint of a training: the training goes on from" in told


def test_the_good_one_is_not_replaced_by_the_damaged_one(make_run: Callable) -> None:
    run = make_run("supervised", epochs=2).train()
    damage(run.folder / "checkpoint.pt")
    run = make_run("supervised", epochs=2, resume=True).train()
    assert epochs(run.folder) == {"checkpoint.pt": 2, "checkpoint_previous.pt": 1}


def test_both_damaged_is_refused_by_the_name_of_the_newest(make_run: Callable) -> None:
    run = make_run("supervised", epochs=2).train()
    for name in ("checkpoint.pt", "checkpoint_previous.pt"):
        damage(run.folder / name)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: is damaged, or no checkpoint .*: put back a copy"):
        make_run("supervised", epochs=3, resume=True).train()


def test_one_of_other_settings_is_refused_and_not_passed_over(make_run: Callable) -> None:
    run = make_run("supervised", epochs=2, record={"seed": 1}).train()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: this run is not the one .* seed is 2 and was 1"):
        make_run("supervised", epochs=3, resume=True, record={"seed": 2}).train()
    damage(run.folder / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint_previous\.pt: this run is not the one .* seed is 2"):
        make_run("supervised", epochs=3, resume=True, record={"seed": 2}).train()


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_crash_between_the_two_renames_leaves_a_whole_checkpoint(
    renamed: int, make_run: Callable, differences: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = make_run("supervised", folder="whole").train().state()
    make_run("supervised", epochs=2).train()
    replace, done = os.replace, []

    def crash(source: Any, target: Any) -> None:
        if Path(target).name.startswith("checkpoint"):
            if len(done) == renamed:
                raise OSError("the machine is gone")
            done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="the machine is gone"):
            make_run("supervised", epochs=3, resume=True).train()
    left = {"checkpoint.pt": 2, "checkpoint_previous.pt": 1} if renamed == 0 else {"checkpoint_previous.pt": 2}
    assert epochs(tmp_path / "run") == left
    assert differences(expected, make_run("supervised", resume=True).train().state()) == []


def test_a_new_training_keeps_none_of_the_one_that_was_there(make_run: Callable) -> None:
    run = make_run("supervised", epochs=2).train()
    make_run("supervised", epochs=1).train()
    assert epochs(run.folder) == {"checkpoint.pt": 1}


def test_what_killed_writes_left_is_removed_and_nothing_else(make_run: Callable, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    names = [".checkpoint.pt.k3_9xw2a", ".model.pt.abcdefgh", ".notes.pt", "checkpoint.pt.12345678"]
    for name in names:
        (tmp_path / "run" / name).touch()
    make_run("supervised", epochs=1).train()
    assert [(tmp_path / "run" / name).exists() for name in names] == [False, False, True, True]


def test_checkpoints_of_a_stage_go_when_it_is_complete(make_run: Callable) -> None:
    seen: list[dict[str, int]] = []
    run = make_run("supervised", epochs=2)
    stage = TrainingCheckpoint(run.folder / "checkpoint.pt", {"method": run.method}, keep=False)
    stage.attach(run.trainer)
    run.trainer.add_event_handler("EPOCH_COMPLETED", lambda: seen.append(epochs(run.folder)))
    run.train()
    assert seen[-1] == {"checkpoint.pt": 2, "checkpoint_previous.pt": 2}  # two handlers of one file
    assert epochs(run.folder) == {}
