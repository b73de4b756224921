# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import pytest
from forked import run_module

from metassl_monai.bundle import locate


@pytest.fixture(scope="module", autouse=True)
def _forked():
    """Run the commands of experiments in processes that need not import everything anew."""

    def status(command, quiet):
        result = run_module(command[2:])
        sys.stderr.write(result.stderr if result.returncode else "")
        return result.returncode

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate, "_status", status)
        yield
