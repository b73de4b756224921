# SPDX-License-Identifier: Apache-2.0
"""The first stage of bidirectional copy-paste: mixtures of labeled images (Bai et al., CVPR 2023, Sec. 3.2)."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from metassl_monai.transforms import BidirectionalCopyPaste as CopyPaste

from .base import Batch, Method, MethodArguments, Pair, Step

__all__ = ["CopyPastePretraining"]


class CopyPastePretraining(Method):
    """One network on labeled images, each mixed with the next one of its batch: a box of it, or all but a box.

    The voxels of the image itself make one pair and those of the next one another, of equal weight, as in the authors'
    script for ACDC; their script for the left atrium judges mixtures as a whole. The published stage makes half as many
    mixtures, all in one direction. The returned prediction is that of the mixtures.

    Args:
        network: the network.
        labeled_loss: see :class:`Method`; a MetaSSL loss takes the network's own prediction as reference.
        unlabeled_loss: not used; an argument so that a config can swap the method alone.
        ramp: not used.
        box_fraction: side of the box as a fraction of the image's.
        apart: judge the two parts of a mixture apart; False judges them as one, which halves the loss.
    """

    names = {"labeled": ("own", "next"), "unlabeled": ()}

    def __init__(
        self, *shared: Any, box_fraction: float = 2 / 3, apart: bool = True, **named: Unpack[MethodArguments]
    ) -> None:
        super().__init__(*shared, **named)
        self.paste = CopyPaste(box_fraction)
        self.apart = apart

    def pairs(self, batch: Batch, step: int) -> Step:
        """Judge the prediction on each mixture against the mixed annotations."""
        image, label = batch["labeled"]["image"], batch["labeled"]["label"]
        prediction = self.network(self.paste(image.roll(-1, dims=0), image))
        target = self.paste(label.roll(-1, dims=0), label, randomize=False)
        if not self.apart:
            return Step([Pair(prediction, prediction, "own", target)], {}, prediction)
        mask: Any = self.paste.mask
        pairs = [
            Pair(prediction, prediction, "next", target, mask=mask),
            Pair(prediction, prediction, "own", target, mask=~mask),
        ]
        return Step(pairs, {}, prediction)
