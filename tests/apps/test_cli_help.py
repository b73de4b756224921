# SPDX-License-Identifier: Apache-2.0
"""What ``--help`` says is what the command takes."""

from __future__ import annotations

import json
import os
import shlex

import pytest
import typer
from typer.testing import CliRunner

from metassl_monai.apps.describe import IDS, describe_bundle_among, describe_training
from metassl_monai.bundle import locate
from metassl_monai.cli import app
from metassl_monai.cli_help import EXAMPLES

LINES = [line for text in EXAMPLES.values() for line in text.splitlines() if line.startswith("metassl ")]


def shown(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "120", "TERM": "dumb"}).invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_has_an_example():
    assert set(typer.main.get_command(app).commands) == set(EXAMPLES)


@pytest.mark.parametrize("line", LINES)
def test_examples_can_be_parsed(line):
    group = typer.main.get_command(app)
    _, name, *words = shlex.split(line, comments=True)
    command = group.commands[name]
    if "--help" in words:
        assert shown(name, *words)
        return
    context = command.make_context(name, words)  # ends the test on an option or argument that the command has not
    assert not context.args or name == "train"


def test_examples_are_shown():
    assert "metassl compare run_a run_b --metric dice --metric hd95_mm" in shown("compare", "--help")


def test_help_of_a_bundle_lists_what_can_be_chosen():
    text = shown("train", "la_atrium_mri_segmentation", "--help")
    configs = locate.bundle_path("la_atrium_mri_segmentation") / "configs"
    train = json.loads((configs / "train.json").read_text())
    for name in ("mean_teacher", "cml", "plain", "la_small", "multi_gpu_train"):
        assert (configs / f"{name}.json").is_file()
        assert f"   {name} " in text
    assert text.index("   cml ") < text.index("--overlay NAME") < text.index("   ref_dualnet ")  # it needs a method
    assert f"--iterations {train['iterations']}" in text
    assert "--patch_size" in text
    assert "la_atrium_mri_segmentation" not in shown("train", "--help").partition("Examples")[2]


def test_ids_of_the_help_are_those_of_some_bundle():
    texts = [describe_training(locate.bundle_path(bundle)) for bundle in locate.bundle_names()]
    assert [name for name in IDS if not any(f" --{name} " in text for text in texts)] == []


def test_the_first_bundle_is_described():
    words = ["cps", "phantom_segmentation", "la_atrium_mri_segmentation"]
    assert describe_bundle_among(words) == describe_training(locate.bundle_path("phantom_segmentation"))


def test_quiet_is_told_to_the_processes_of_a_training(monkeypatch):
    for name in ("METASSL_QUIET", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "")  # so that it is taken back after the test
        monkeypatch.delenv(name)
    started = []
    monkeypatch.setattr(locate, "_status", lambda command, quiet: started.append((command, quiet)) or 0)
    assert shown("--quiet", "train", "phantom_segmentation", "--iterations", "1") == ""
    ((_, quiet),) = started
    assert quiet
    assert os.environ["TQDM_DISABLE"] == "1"
