# SPDX-License-Identifier: Apache-2.0
"""Where a method and a loss meet: a prediction beside the reference that judges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from metassl_monai.ignore import IGNORE

__all__ = ["Pair", "Step", "at_unannotated", "overlap", "pair_streams", "unannotated_pairs"]


class Pair(NamedTuple):
    """A prediction that receives gradient and the reference that judges it."""

    prediction: Tensor
    """Logits, ``(B, C, *spatial)``."""
    reference: Tensor
    """Logits of the same shape; the loss detaches it."""
    name: str
    """One of ``Method.names``, unique per stream within a step."""
    target: Tensor | None = None
    """Annotation, ``(B, 1, *spatial)``: its presence makes the pair a labeled one."""
    label: Tensor | None = None
    """Hard label of the reference where it is not ``argmax(reference)``, ``(B, 1, *spatial)``."""
    mask: Tensor | None = None
    """Non-zero where the pair counts, ``(B, 1, *spatial)``."""
    weight: float | Tensor = 1.0
    """Factor on the loss, without the ramp."""


class Step(NamedTuple):
    """What a method makes of a batch."""

    pairs: Sequence[Pair]
    extras: Mapping[str, Tensor]
    """Further loss terms by name, complete with their weights."""
    prediction: Tensor
    """Logits of the labeled images, or of the mixtures that they are part of."""
    unannotated: Sequence[Pair] | None = None
    """Unlabeled pairs of labeled images, masked to what nobody annotated, see :func:`at_unannotated`; looked at with
    ``partial_labels`` alone. None compares each labeled pair as the unlabeled pair of its name is compared."""


def pair_streams(
    prediction: Tensor, reference: Tensor, name: str, target: Tensor, labeled_weight: float = 1.0
) -> list[Pair]:
    """Split whole-batch logits, labeled samples first, into a labeled and an unlabeled pair."""
    # not by slices, whose gradients are each filled up with zeros and added
    sizes = [len(target), len(prediction) - len(target)]
    on_labeled, on_unlabeled = zip(prediction.split(sizes), reference.split(sizes), strict=True)
    return [Pair(*on_labeled, name, target, weight=labeled_weight), Pair(*on_unlabeled, name)]


def overlap(mask: Tensor | None, where: Tensor | None) -> Tensor | None:
    """A mask with its values kept where ``where`` is True, and 0 elsewhere; None stands for everywhere."""
    if mask is None or where is None:
        return where if mask is None else mask
    return mask * where


def at_unannotated(pair: Pair, target: Tensor) -> Pair:
    """Turn a pair of labeled images into an unlabeled one of the voxels that nobody annotated.

    Its weight is multiplied by their share of all voxels, since the loss is a mean over however few they are.

    Args:
        pair: prediction, reference, name, and the weight of the unlabeled pair of that name.
        target: the annotation, with :data:`~metassl_monai.ignore.IGNORE` in these voxels, ``(B, 1, *spatial)``.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.base import Pair, at_unannotated
        >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[[0, 1, -1, 1]]])
        >>> pair = at_unannotated(Pair(logits, logits, "network"), target)
        >>> pair.mask.tolist(), pair.weight.item()
        ([[[False, False, True, False]]], 0.25)
    """
    missing = target == IGNORE
    share = missing.float().mean()
    return pair._replace(target=None, mask=overlap(pair.mask, missing), weight=pair.weight * share)


def unannotated_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Compare each labeled pair, where nobody annotated, as the unlabeled pair of its name is compared."""
    weights = {pair.name: pair.weight for pair in pairs if pair.target is None}
    labeled = [pair for pair in pairs if pair.target is not None and pair.name in weights]
    return [at_unannotated(pair._replace(weight=weights[pair.name]), pair.target) for pair in labeled]  # type: ignore[arg-type]
