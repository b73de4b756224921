# SPDX-License-Identifier: Apache-2.0
"""The loss terms of Dual Networks (arXiv 2505.17690) as pure functions of logits ``(B, C, *spatial)``."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from metassl_monai.losses.functional import cross_entropy_map, hard_label, masked_mean, normalized_entropy
from metassl_monai.losses.precision import at_least_float

__all__ = ["consistency", "contrast", "reliable", "review", "uncertainty"]


def reliable(logits: Tensor, keep: float = 0.8) -> Tensor:
    """Whether a voxel is among the share ``keep`` of least entropy in the batch (Eq. 3).

    Voxels at the limit itself are kept: a network that is sure of nearly everything has many of entropy 0.

    Args:
        logits: ``(B, C, *spatial)``.
        keep: share of the voxels of the whole batch.

    Returns:
        Booleans, ``(B, 1, *spatial)``.

    Example::

        >>> import torch
        >>> from metassl_monai.methods.dualnet_terms import reliable
        >>> logits = torch.stack([torch.arange(5.0), torch.zeros(5)]).view(1, 2, 5)
        >>> reliable(logits, keep=0.8)
        tensor([[[False,  True,  True,  True,  True]]])
    """
    values = normalized_entropy(logits.detach())
    # not torch.quantile, which refuses tensors of more than 2^24 elements
    limit = values.flatten().kthvalue(max(1, round(keep * values.numel()))).values
    return values <= limit


def consistency(first: Tensor, second: Tensor) -> Tensor:
    """``1 - cos`` of the class probabilities of each voxel, mean (L_reg, Eq. 5-6); gradient to both."""
    return 1 - F.cosine_similarity(at_least_float(first).softmax(1), at_least_float(second).softmax(1), dim=1).mean()


def uncertainty(student: Tensor, teacher: Tensor, temperature: float = 0.5) -> Tensor:
    """Imitation of the teacher, weighed down where both differ: ``exp(-KL) * CE + KL``, mean (L_une, Eq. 7-9).

    The weight ``exp(-KL)`` carries gradient, and the second term keeps the student from growing it.

    Args:
        student: logits, ``(B, C, *spatial)``, the only ones that receive gradient.
        teacher: logits of the same shape.
        temperature: the cross-entropy's target is ``softmax(teacher / temperature)``; the hard label at 0. The
            divergence does without.

    Returns:
        A scalar.
    """
    log_p, log_q = at_least_float(student).log_softmax(dim=1), at_least_float(teacher.detach()).log_softmax(dim=1)
    divergence = (log_q.exp() * (log_q - log_p)).sum(dim=1, keepdim=True)
    if temperature > 0:
        target = (at_least_float(teacher.detach()) / temperature).softmax(dim=1)
        cross_entropy = -(target * log_p).sum(dim=1, keepdim=True)
    else:
        cross_entropy = cross_entropy_map(student, hard_label(teacher, None))
    return ((-divergence).exp() * cross_entropy + divergence).mean()


def contrast(features: Tensor, logits: Tensor, sure: Tensor) -> Tensor:
    """Pull unsure voxels to the prototype of their class, push prototypes apart (L_c, Eq. 10-11, for any classes).

    On features of length 1: the mean over the classes of the mean distance between its unsure voxels and its
    prototype, plus the mean over the pairs of classes of ``2 - distance`` of their prototypes, which carry gradient in
    the second part only. (The paper's sign would draw prototypes together.) The mean is over *all* unsure voxels, of
    which the release draws one in a hundred. A class without sure or without unsure voxels drops out of its part.

    Args:
        features: ``(B, channels, *spatial)``.
        logits: of the same voxels, ``(B, C, *spatial)``: they say the class and receive no gradient.
        sure: see :func:`reliable`, ``(B, 1, *spatial)``.

    Returns:
        A scalar, not negative.
    """
    unit = F.normalize(at_least_float(features), dim=1)
    label = hard_label(logits, None)
    classes = [label == c for c in range(logits.shape[1])]
    prototypes = [_prototype(unit, sure & inside) for inside in classes]
    present = [(sure & inside).any() for inside in classes]
    pulls = [
        (masked_mean(_distance(unit, prototype.detach()), ~sure & inside), there & (~sure & inside).any())
        for prototype, inside, there in zip(prototypes, classes, present, strict=True)
    ]
    pushes = [
        (2 - _distance(prototypes[a], prototypes[b]).squeeze(), present[a] & present[b])
        for a, b in itertools.combinations(range(len(classes)), 2)
    ]
    return _mean_of_valid(pulls) + _mean_of_valid(pushes)


def review(
    prediction: Tensor, other: Tensor, target: Tensor, threshold: float = 0.6, known: Tensor | None = None
) -> Tensor:
    """Squared error of the foreground probability where just one network says foreground (L_review of the release).

    Not in the paper; it comes from the code that the release builds on (MCF, CVPR 2023).

    Args:
        prediction: logits that receive gradient, ``(B, C, *spatial)``.
        other: logits of the other network, same shape.
        target: annotation, ``(B, 1, *spatial)``; all classes but 0 are foreground.
        threshold: probability from which a network says foreground.
        known: where there is an annotation, ``(B, 1, *spatial)``; everywhere when None.

    Returns:
        A scalar; 0 where the networks never differ so.
    """
    own, others = _foreground(prediction), _foreground(other.detach())
    differ = (own >= threshold) != (others >= threshold)
    differ = differ if known is None else differ & known
    return masked_mean((own - (target != 0).to(own.dtype)).square(), differ)


def _foreground(logits: Tensor) -> Tensor:
    return 1 - at_least_float(logits).softmax(dim=1)[:, :1]


def _prototype(unit: Tensor, inside: Tensor) -> Tensor:
    """Mean direction of the features inside, shape ``(1, channels, 1, ...)``; 0 where nothing is inside."""
    voxels = [0, *range(2, unit.ndim)]
    return F.normalize(torch.where(inside, unit, 0).sum(dim=voxels, keepdim=True), dim=1)


def _distance(features: Tensor, prototype: Tensor) -> Tensor:
    term: Tensor = torch.linalg.vector_norm(features - prototype, dim=1, keepdim=True)
    return term


def _mean_of_valid(terms: list[tuple[Tensor, Tensor]]) -> Tensor:
    values, valid = (torch.stack(list(column)) for column in zip(*terms, strict=True))
    return masked_mean(values, valid)
