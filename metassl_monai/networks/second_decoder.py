# SPDX-License-Identifier: Apache-2.0
"""A second decoder on the encoder of another network."""

from __future__ import annotations

from torch import Tensor, nn

from .copies import fresh_copy

__all__ = ["SecondDecoder"]


class SecondDecoder(nn.Module):
    """Shares the encoder of a network and has a decoder of its own, with weights of its own.

    With :class:`~metassl_monai.methods.CrossPseudoSupervision` the two decoders teach each other, as in the CCT script
    that the authors of MetaSSL released.

    Args:
        network: must have ``encoder`` and ``decoder``, as the networks of this package have.

    Example::

        >>> import torch
        >>> from metassl_monai.networks import SecondDecoder, UNet2D
        >>> network = UNet2D(1, 2, features=(4, 8), dropout=(0.0, 0.0))
        >>> second = SecondDecoder(network)
        >>> second.encoder is network.encoder, second(torch.zeros(1, 1, 8, 8)).shape
        (True, torch.Size([1, 2, 8, 8]))
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder = network.get_submodule("encoder")
        self.decoder = fresh_copy(network.get_submodule("decoder"))

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        logits: Tensor = self.decoder(self.encoder(x))
        return logits
