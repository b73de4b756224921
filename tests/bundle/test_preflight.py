# SPDX-License-Identifier: Apache-2.0
"""A network that has diverged is not used."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metassl_monai.bundle import UserError, check_network, start_from


@pytest.mark.parametrize("nested", [False, True])
def test_weights_that_are_not_finite_are_refused_by_name(nested, tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    file = tmp_path / "model.pt"
    state = network.state_dict()
    torch.save({"model": state} if nested else state, file)
    check_network(network, str(file))
    state["1.running_var"][1] = float("inf")
    torch.save({"model": state} if nested else state, file)
    with pytest.raises(UserError, match=r"model\.pt: its 1\.running_var is not finite"):
        check_network(network, str(file))


def test_a_first_stage_that_is_damaged_or_not_finite_is_refused(tmp_path):
    network, file = nn.Linear(2, 2), tmp_path / "pretrained.pt"
    torch.save({**network.state_dict(), "bias": torch.full((2,), float("nan"))}, file)
    with pytest.raises(UserError, match=r"pretrained\.pt: its bias is not finite"):
        start_from(file, network)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"pretrained\.pt: holds no weights"):
        start_from(file, network)
