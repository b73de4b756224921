# SPDX-License-Identifier: Apache-2.0
"""A mistake is an exception that a server can catch, and one message on a command line."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from metassl_monai.bundle import UserError, user_mistake
from metassl_monai.bundle.errors import refuse, silence_mistakes, tell_and_exit
from metassl_monai.losses import metassl_losses


def caught(call):
    try:
        call()
    except Exception as error:  # as a server does, which must not end
        return error
    raise AssertionError("nothing was raised")


def wrapped(call):
    """What MONAI makes of an exception in a config."""
    try:
        call()
    except Exception as error:
        raise RuntimeError("Failed to evaluate") from error


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: refuse(["x: wrong"]), "x: wrong"), (lambda: metassl_losses(2, preset="papers"), "preset='papers'")],
    ids=["refused", "argument"],
)
def test_a_mistake_is_found_under_what_monai_makes_of_it(call, message):
    for error in (caught(call), caught(lambda: wrapped(call)), caught(lambda: wrapped(lambda: wrapped(call)))):
        assert message in str(user_mistake(error))


def test_a_failure_of_something_else_is_no_mistake():
    assert user_mistake(caught(lambda: int("x"))) is None
    assert user_mistake(caught(lambda: wrapped(lambda: [][0]))) is None
    assert tell_and_exit(caught(lambda: int("x"))) is None


@pytest.mark.parametrize(("code", "exit_code"), [("what, where, remedy", "what, where, remedy"), (3, 3)])
def test_a_program_ends_with_the_message_or_the_status(code, exit_code, monkeypatch):
    error = UserError(code)
    monkeypatch.setattr("metassl_monai.bundle.errors.user_mistake", lambda error: error)
    with pytest.raises(SystemExit) as end:
        tell_and_exit(error)
    assert end.value.code == exit_code


ENGINE = """
import logging, sys
from monai.engines import SupervisedEvaluator
from monai.handlers import StatsHandler
import torch
from metassl_monai.bundle.errors import refuse, silence_mistakes, tell_root_cause

logging.basicConfig(stream=sys.stdout, level=logging.INFO)
sys.excepthook = tell_root_cause
silence_mistakes()

class Batches:
    def __len__(self): return 1
    def __iter__(self):
        if "mistake" in sys.argv:
            refuse(["scan.nii.gz: the file is missing: add it"])
        raise OSError("the disk is gone")

SupervisedEvaluator("cpu", Batches(), torch.nn.Identity(), epoch_length=1, val_handlers=[StatsHandler()]).run()
"""


def engine(kind):
    command = [sys.executable, "-W", "ignore", "-c", ENGINE, kind]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_mistake_that_ends_an_engine_is_told_once():
    told, failed = engine("mistake"), engine("failure")
    assert told.returncode == failed.returncode == 1
    output = told.stdout + told.stderr
    assert output.count("scan.nii.gz: the file is missing: add it") == 1
    assert "Traceback" not in output
    assert "INFO" in output
    assert "terminating due to exception" in failed.stdout
    assert "Traceback" in failed.stderr


def test_warnings_pass_while_a_mistake_is_on_its_way(monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(told)])
    silence_mistakes()
    try:
        refuse(["x: wrong"])
    except UserError:
        logging.getLogger("test").warning("the run goes on")
        logging.getLogger("test").error("Engine run is terminating")
    assert told.getvalue() == "the run goes on\n"
