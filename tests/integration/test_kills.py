# SPDX-License-Identifier: Apache-2.0
"""The short form of ``kills.py``; the long one is in ``docs/results/reliability/kills.json``."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).with_name("kills.py")


def test_a_training_that_is_killed_ends_as_the_uninterrupted_one(tmp_path):
    command = [
        sys.executable,
        str(SCRIPT),
        "--methods",
        "bcp",
        "cps",
        "--kills",
        "6",
        "--out",
        str(tmp_path / "k.json"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads((tmp_path / "k.json").read_text())
    assert found["kills"] == 6
    assert found["largest_difference"] == 0
    assert {row["mlflow"] for row in found["methods"]} == {"one finished run each, no epoch twice"}


def test_the_comparison_sees_the_smallest_difference():
    largest = runpy.run_path(str(SCRIPT))["largest"]
    state = {"a": [torch.ones(2), 3], "b": "text"}
    assert largest(state, {"a": [torch.ones(2), 3], "b": "text"}) == 0
    assert largest(state, {"a": [torch.tensor([1.0, 1.0 + 2**-23]), 3], "b": "text"}) == 2**-23
    for other in (
        {"a": [torch.ones(3), 3], "b": "text"},
        {"a": [torch.ones(2, dtype=torch.float64), 3], "b": "text"},
        {"a": [torch.ones(2), 4], "b": "text"},
        {"a": [torch.ones(2)], "b": "text"},
        {"a": [torch.ones(2), 3]},
    ):
        assert largest(state, other) == float("inf")
    assert largest(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")
