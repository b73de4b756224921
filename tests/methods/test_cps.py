# SPDX-License-Identifier: Apache-2.0
"""What is cross pseudo supervision's own: two networks."""

from __future__ import annotations

import pytest
from torch import nn

from metassl_monai.losses import metassl_losses
from metassl_monai.methods import CrossPseudoSupervision


def test_the_same_network_twice_is_refused_with_the_remedy() -> None:
    network = nn.Conv2d(1, 2, 1)
    with pytest.raises(ValueError, match=r"same object.*second_network_def"):
        CrossPseudoSupervision(network, *metassl_losses(2), ramp=lambda step: 1.0, second_network=network)
