# SPDX-License-Identifier: Apache-2.0
"""Two processes against one with the same images in each step: what is equal, and by how much the rest differs.

At learning rate 0, so that a difference stays where it arises.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

import metassl_monai

SCRIPT = Path(__file__).with_name("half_batch_rank.py")
ROOT = Path(metassl_monai.__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, Any]]]:
    """Train in so many processes and return what each has written."""

    def run(world_size: int, preset: str, batch_norm: bool) -> list[dict[str, Any]]:
        folder = tmp_path_factory.mktemp("processes")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        processes = []
        for rank in range(world_size):
            arguments = [f"{folder.as_uri()}/rendezvous", preset, str(batch_norm), str(folder / f"{rank}.pt")]
            command = [sys.executable, str(SCRIPT), str(rank), str(world_size), *arguments]
            processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        try:
            errors = [process.communicate(timeout=120)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * world_size, errors
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]

    return run


def largest_difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """The largest difference between tensors of two mappings, as a fraction of the largest entry."""
    assert one.keys() == two.keys()
    scale = max(float(tensor.abs().max()) for tensor in one.values())
    return max(float((one[name] - two[name]).abs().max()) for name in one) / scale


@pytest.mark.parametrize(
    ("preset", "batch_norm"),
    [*(pytest.param(*case, marks=pytest.mark.slow) for case in (("plain", False), ("paper", True))), ("paper", False)],
)
def test_two_processes_differ_from_one_in_normalizers_alone(
    preset: str, batch_norm: bool, trained: Callable[..., list[dict[str, Any]]]
) -> None:
    """Normalizers are those of losses, a mean over the voxels of a process, and of batch norm."""
    [one] = trained(1, preset, batch_norm)
    first, second = trained(2, preset, batch_norm)
    assert largest_difference(first["gradients"], second["gradients"]) == 0
    thresholds = [name for name in one["state"] if "threshold" in name]
    assert len(thresholds) == (0 if preset == "plain" else 4)
    for name, value in one["state"].items():
        of_batches = "running" in name
        tolerance = 0.01 if of_batches else 1e-4 if batch_norm else 1e-6
        torch.testing.assert_close(first["state"][name], value, rtol=0, atol=tolerance)
        assert of_batches or first["state"][name].equal(second["state"][name]), name
    for alone, *shared in zip(one["terms"], first["terms"], second["terms"], strict=True):
        means = {name: fmean(terms[name] for terms in shared) for name in alone}
        assert means == pytest.approx(alone, rel=0.01 if batch_norm else 1e-3)
    assert largest_difference(one["gradients"], first["gradients"]) < (0.05 if batch_norm else 1e-3)
