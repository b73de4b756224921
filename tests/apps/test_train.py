# SPDX-License-Identifier: Apache-2.0
"""Training for as long as there is time."""

from __future__ import annotations

import time

import pytest
from typer.testing import CliRunner

from metassl_monai.apps.train import iterations_in, train_bundle
from metassl_monai.bundle import UserError, locate
from metassl_monai.bundle.locate import bundle_path, config_files
from metassl_monai.cli import app
from metassl_monai.methods import CrossPseudoSupervision

PHANTOM = "phantom_segmentation"


def arguments_of(datalist, *more):
    data = ["--dataset_dir", str(datalist.parent), "--datalist", str(datalist)]
    return [*data, "--features", "[4,4,4,4,4]", "--spatial_size", "[32,32]", *more]


def test_iterations_are_what_fits_into_the_time(phantom, monkeypatch):
    """Each step waits 0.1 s: 85 % of a minute are 510 steps less what the steps themselves take."""
    pairs = CrossPseudoSupervision.pairs

    def slow(self, batch, step):
        time.sleep(0.1)
        return pairs(self, batch, step)

    monkeypatch.setattr(CrossPseudoSupervision, "pairs", slow)
    files = config_files(bundle_path(PHANTOM), ["train"])
    assert 50 < iterations_in(1, files, arguments_of(phantom)) < 510


def test_minutes_become_iterations_and_a_resumed_training_keeps_them(phantom, monkeypatch, tmp_path, capsys):
    run, measured = [], iter([321, 20])
    monkeypatch.setattr(locate, "run_command", run.append)
    monkeypatch.setattr("metassl_monai.apps.train.iterations_in", lambda *_: next(measured))
    arguments = arguments_of(phantom, "--output_dir", str(tmp_path / "run"))
    train_bundle(PHANTOM, [], arguments, minutes=5)
    train_bundle(PHANTOM, [], ["--resume", *arguments], minutes=5)  # on a machine that is busy now, say
    first, resumed = run
    assert resumed[resumed.index("--resume") + 1] == "True"
    assert first[-2:] == resumed[-2:] == ["--iterations", "300"]  # whole epochs of 50
    assert f"going on to the 300 iterations of {tmp_path / 'run' / 'minutes.json'}" in capsys.readouterr().out
    train_bundle(PHANTOM, [], [*arguments, "--output_dir", str(tmp_path / "short")], minutes=0.1)
    assert run[-1][-2:] == ["--iterations", "20"]  # less than one
    train_bundle(PHANTOM, [], ["--resume", *arguments])
    assert run[-1][-2:] == ["--iterations", "300"]


@pytest.mark.parametrize("another_length", [["--overwrite"], ["--resume", "--iterations", "400"]])
def test_a_training_of_another_length_is_resumed_to_its_own(another_length, phantom, monkeypatch, tmp_path):
    run = []
    monkeypatch.setattr(locate, "run_command", run.append)
    monkeypatch.setattr("metassl_monai.apps.train.iterations_in", lambda *_: 300)
    arguments = arguments_of(phantom, "--output_dir", str(tmp_path))
    train_bundle(PHANTOM, [], arguments, minutes=5)
    train_bundle(PHANTOM, [], [*another_length, *arguments])
    train_bundle(PHANTOM, [], ["--resume", *arguments])
    assert "--iterations" not in run[-1]


def test_an_option_without_its_value_is_one_message(phantom):
    with pytest.raises(UserError, match="--iterations"):
        train_bundle(PHANTOM, [], ["--iterations"])


def test_a_folder_that_holds_a_training_is_refused_before_a_step_is_measured(phantom, monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "checkpoint.pt").touch()
    monkeypatch.setattr("metassl_monai.apps.train.iterations_in", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(UserError, match="is of an earlier training"):
        train_bundle(PHANTOM, [], arguments_of(phantom, "--output_dir", str(tmp_path)), minutes=5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "5", "--iterations", "3"], "both say how long to train"),
        (["--minutes", "0"], "--minutes 0: must be more than 0"),
    ],
)
def test_impossible_times_are_refused(words, message):
    result = CliRunner().invoke(app, ["train", PHANTOM, *words])
    assert result.exit_code == 1
    assert message in result.output or message in str(result.exception)


def test_training_an_unknown_bundle_is_one_message():
    with pytest.raises(UserError, match="no bundle 'nothing'"):
        train_bundle("nothing", [], [])
    with pytest.raises(UserError, match="no bundle 'phantom_segmentaton': did you mean phantom_segmentation"):
        train_bundle("phantom_segmentaton", [], [])
