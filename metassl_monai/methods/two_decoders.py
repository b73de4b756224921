# SPDX-License-Identifier: Apache-2.0
"""One encoder and two decoders that judge each other: what MC-Net, DC-Net and MLRP have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from typing_extensions import Unpack

from metassl_monai.networks.copies import fresh_copy

from .base import Batch, Method, MethodArguments, all_images, require_halves

__all__ = ["TwoDecoderArguments", "TwoDecoders"]


class TwoDecoderArguments(MethodArguments, total=False):
    """Arguments of :class:`TwoDecoders`."""

    second_decoder: nn.Module | None


class TwoDecoders(Method):
    """Base of methods whose second decoder, a fresh copy of the network's unless given, sees the same features.

    Args:
        shared: see :class:`Method`. The network must have ``encoder``, which maps images to a list of features, and
            ``decoder``, which maps such a list to logits, as the networks of :mod:`metassl_monai.networks` have.
        second_decoder: the second decoder; a fresh copy of the network's when None.
        named: see :class:`Method`.

    Raises:
        ValueError: when the network has no ``encoder`` or no ``decoder``.
    """

    names = {"labeled": ("network", "second_decoder"), "unlabeled": ("network", "second_decoder")}
    title: ClassVar[str]
    """Short name of the method, for messages."""

    def __init__(self, *shared: Any, second_decoder: nn.Module | None = None, **named: Unpack[MethodArguments]) -> None:
        super().__init__(*shared, **named)
        self.require_network(self.network)
        self.second_decoder = fresh_copy(self.first_decoder) if second_decoder is None else second_decoder

    def require_network(self, network: nn.Module) -> None:
        """Raise ValueError where the network cannot be used."""
        require_halves(network, f"of which {self.title} doubles the latter")

    @property
    def first_decoder(self) -> nn.Module:
        """The decoder of the network."""
        return self.network.get_submodule("decoder")

    def encoded(self, batch: Batch) -> Any:
        """Features of the images of both streams, labeled first, as the decoders take them."""
        return self.network.get_submodule("encoder")(all_images(batch))
