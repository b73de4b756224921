# SPDX-License-Identifier: Apache-2.0
"""A client of federated learning that exchanges all networks of a method."""

from __future__ import annotations

import copy
from typing import Any

from monai.fl.client import MonaiAlgo
from torch import nn

from metassl_monai.methods import Method

__all__ = ["MethodAlgo", "exchanged_networks"]

_STATISTICS = {"labeled_losses", "unlabeled_losses"}
"""Submodules of a method whose buffers describe the images of one site: thresholds, accuracies."""


class MethodAlgo(MonaiAlgo):
    """MONAI's client, with the second network, teacher or projection of a method exchanged as well.

    ``MonaiAlgo`` exchanges one network, so that each site would keep a second one of its own. The inference network's
    weights travel under their own names, which the evaluation and the server's ``model.pt`` know, the other ones
    behind the name of their submodule, such as ``second_network.``. The statistics of losses stay where they are.

    Takes the arguments of ``monai.fl.client.MonaiAlgo``.
    """

    def initialize(self, extra: dict[str, Any] | None = None) -> None:
        """Prepare as ``MonaiAlgo`` does, and let the trainer show all networks."""
        super().initialize(extra)  # type: ignore[no-untyped-call]
        trainer: Any = self.trainer
        if trainer is not None:
            trainer.network = exchanged_networks(trainer.unwrapped_method)


def exchanged_networks(method: Method) -> nn.Module:
    """Return the inference network of a method with its other networks as submodules; weights are shared.

    Args:
        method: the method.

    Example:
        >>> from metassl_monai.losses import metassl_losses
        >>> from metassl_monai.methods import CrossPseudoSupervision
        >>> networks = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)
        >>> method = CrossPseudoSupervision(networks[0], *metassl_losses(2), lambda step: 0.1, networks[1])
        >>> list(exchanged_networks(method).state_dict())
        ['weight', 'bias', 'second_network.weight', 'second_network.bias']
    """
    inference = method.inference_network
    there = {id(tensor) for tensor in inference.state_dict(keep_vars=True).values()}
    # a shallow copy that has the same parameters, and a list of submodules of its own
    networks = copy.copy(inference)
    networks._modules = dict(inference._modules)
    for name, module in method.named_children():
        tensors = module.state_dict(keep_vars=True).values()
        if name not in _STATISTICS and any(id(tensor) not in there for tensor in tensors):
            networks.add_module(name, module)
    return networks
