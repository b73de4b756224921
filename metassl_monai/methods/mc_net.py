# SPDX-License-Identifier: Apache-2.0
"""Mutual consistency: two decoders of one encoder agree with each other's sharpened output (Wu et al., MICCAI 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from metassl_monai.networks.second_decoder import fresh_copy

from .base import Batch, Method, Step, all_images, pair_streams

__all__ = ["MutualConsistency"]


class MutualConsistency(Method):
    """One encoder and two decoders; each decoder is judged by the other's sharpened probabilities (MC-Net).

    Sharpening, ``p^(1/T)`` and renormalized (Eq. 2), is a division of the logits by T. In the paper the decoders differ
    in how they upsample; here the second one is the first one with other initial weights, unless another is given. The
    authors' release compares on labeled images too and lets gradient into the sharpened output; here the plain loss
    compares on unlabeled images only, and the reference is detached, as for every method. The common benchmark code
    lacks the method.

    Sharpening keeps the label, all that MetaSSL learns from, but makes nearly every voxel confident, so that regions
    tell little: with a MetaSSL loss give ``temperature=1.0``.

    Args:
        network: must have ``encoder``, which maps images to a list of features, and ``decoder``, which maps such a list
            to logits, as the networks of :mod:`metassl_monai.networks` have.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`SoftmaxMSELoss` is the method's own.
        ramp: see :class:`Method`.
        temperature: T of the sharpening; 1 does not sharpen.
        second_decoder: the second decoder, for the same features; a fresh copy of the network's when None.

    Raises:
        ValueError: when the network has no ``encoder`` or no ``decoder``, or the temperature is not positive.
    """

    names = {"labeled": ("network", "second_decoder"), "unlabeled": ("network", "second_decoder")}

    def __init__(
        self,
        network: nn.Module,
        labeled_loss: nn.Module | Mapping[str, nn.Module],
        unlabeled_loss: nn.Module | Mapping[str, nn.Module],
        ramp: Callable[[int], float],
        temperature: float = 0.1,
        second_decoder: nn.Module | None = None,
    ) -> None:
        if not (hasattr(network, "encoder") and hasattr(network, "decoder")):
            raise ValueError(
                f"{type(network).__name__} has no `encoder` and `decoder`, of which MC-Net doubles the latter: "
                "use a network of metassl_monai.networks, or give yours these two submodules."
            )
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: choose a positive one; the paper's is 0.1.")
        super().__init__(network, labeled_loss, unlabeled_loss, ramp)
        self.second_decoder = fresh_copy(network.get_submodule("decoder")) if second_decoder is None else second_decoder
        self.temperature = temperature

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each decoder by the other on both streams."""
        features = self.network.get_submodule("encoder")(all_images(batch))
        first, second = self.network.get_submodule("decoder")(features), self.second_decoder(features)
        target = batch["labeled"]["label"]
        pairs = [
            *pair_streams(first, second / self.temperature, "network", target),
            *pair_streams(second, first / self.temperature, "second_decoder", target),
        ]
        return Step(pairs, {}, first[: len(target)])
