# SPDX-License-Identifier: Apache-2.0
"""Mutual consistency: two decoders of one encoder agree with each other's sharpened output (Wu et al., MICCAI 2021)."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from .base import Batch, Step, pair_streams
from .two_decoders import TwoDecoderArguments, TwoDecoders

__all__ = ["MutualConsistency"]


class MutualConsistency(TwoDecoders):
    """One encoder and two decoders; each decoder is judged by the other's sharpened probabilities (MC-Net).

    Sharpening, ``p^(1/T)`` and renormalized (Eq. 2), is a division of the logits by T. In the paper the decoders differ
    in how they upsample; here the second one is the first one with other initial weights, unless another is given. The
    authors' release compares on labeled images too and lets gradient into the sharpened output; here the plain loss
    compares on unlabeled images only, and the reference is detached, as for every method. The common benchmark code
    lacks the method.

    Sharpening keeps the label, all that MetaSSL learns from, but makes nearly every voxel confident, so that regions
    tell little: with a MetaSSL loss give ``temperature=1.0``.

    Args:
        network: see :class:`TwoDecoders`.
        labeled_loss: see :class:`Method`.
        unlabeled_loss: see :class:`Method`; :class:`SoftmaxMSELoss` is the method's own.
        ramp: see :class:`Method`.
        temperature: T of the sharpening; 1 does not sharpen.
        second_decoder: see :class:`TwoDecoders`.

    Raises:
        ValueError: when the network has no ``encoder`` or no ``decoder``, or the temperature is not positive.
    """

    title = "MC-Net"

    def __init__(self, *shared: Any, temperature: float = 0.1, **named: Unpack[TwoDecoderArguments]) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: choose a positive one; the paper's is 0.1.")
        super().__init__(*shared, **named)
        self.temperature = temperature

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge each decoder by the other on both streams."""
        features = self.encoded(batch)
        first, second = self.first_decoder(features), self.second_decoder(features)
        target = batch["labeled"]["label"]
        pairs = [
            *pair_streams(first, second / self.temperature, "network", target),
            *pair_streams(second, first / self.temperature, "second_decoder", target),
        ]
        return Step(pairs, {}, first[: len(target)])
