# SPDX-License-Identifier: Apache-2.0
"""Two networks: what cross pseudo supervision and all that builds on two networks have in common."""

from __future__ import annotations

from torch import nn

from .base import Losses, Method, MethodArguments, Ramp, require_two

__all__ = ["TwoNetworkArguments", "TwoNetworks"]


class TwoNetworkArguments(MethodArguments, total=False):
    """What every method of two networks takes, see :class:`TwoNetworks`."""

    second_network: nn.Module


class TwoNetworks(Method):
    """Base of methods of two networks, of which the first one is exported unless they say otherwise.

    Args:
        network: the first network.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`.
        ramp: see :class:`Method`.
        second_network: the second network. It must not share weights with the first, nor start from equal ones.

    Raises:
        ValueError: when both networks are the same object.
    """

    names = {"labeled": ("network", "second_network"), "unlabeled": ("network", "second_network")}

    def __init__(
        self, network: nn.Module, labeled_loss: Losses, unlabeled_loss: Losses, ramp: Ramp, second_network: nn.Module
    ) -> None:
        self.require_networks(network, second_network)
        super().__init__(network, labeled_loss, unlabeled_loss, ramp)
        self.second_network = second_network

    @staticmethod
    def require_networks(network: nn.Module, second_network: nn.Module) -> None:
        """Raise ValueError where the networks cannot be used together."""
        require_two(network, second_network)
