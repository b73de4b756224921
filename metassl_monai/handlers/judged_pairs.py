# SPDX-License-Identifier: Apache-2.0
"""Unlabeled pairs beside the hidden annotations of their images, and what can be counted there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metassl_monai.losses import Region

__all__ = ["JudgedPair", "class_counts", "dice_metrics", "pairs_and_images", "region_counts", "region_metrics"]


class JudgedPair(NamedTuple):
    """An unlabeled pair beside the hidden annotation; all ``(B, 1, *spatial)``, the image with its channels."""

    image: Tensor
    truth: Tensor
    reference: Tensor
    """Label of the reference."""
    prediction: Tensor
    """Label of the prediction."""
    inside: Tensor
    """Where the pair counts and somebody annotated."""
    regions: Tensor | None
    """:class:`Region` of every voxel, None where the loss has none."""


def pairs_and_images(pairs: Iterable[Any], images: int) -> Iterator[tuple[Any, slice]]:
    """Say of each unlabeled pair of one step which of the unlabeled images it is about.

    The rule: a pair keeps the order of the images. One that holds fewer of them takes the first that the pair before
    left over, as the two halves of bidirectional copy-paste do; after the last image the next pair begins anew.

    Args:
        pairs: the pairs of a method; those with a target are left out.
        images: number of unlabeled images in the batch.

    Raises:
        ValueError: when a pair reaches beyond the last image.
    """
    end = 0
    for pair in pairs:
        if pair.target is None:
            start = end % images
            end = start + len(pair.prediction)
            if end > images:
                raise ValueError(
                    f"pair {pair.name!r} holds {len(pair.prediction)} samples, but only {images - start} of {images} "
                    "unlabeled images are left for it: its hidden labels cannot be told."
                )
            yield pair, slice(start, end)


def class_counts(judged: JudgedPair, num_classes: int) -> Tensor:
    """Voxels by class where reference and truth have it, where the reference has it, and where the truth has it."""
    rows = []
    for c in range(num_classes):
        reference, truth = (judged.reference == c) & judged.inside, (judged.truth == c) & judged.inside
        rows.append(torch.stack([(reference & truth).sum(), reference.sum(), truth.sum()]))
    return torch.stack(rows)


def region_counts(judged: JudgedPair) -> Tensor:
    """Voxels and right ones by region, shape ``(2, 4, 2)``: among all, and among the reference's foreground."""
    right = judged.reference == judged.truth
    rows = []
    for among in (judged.inside, judged.inside & (judged.reference != 0)):
        cells = [among & (judged.regions == region) for region in Region]
        rows.append(torch.stack([torch.stack([cell.sum(), (cell & right).sum()]) for cell in cells]))
    return torch.stack(rows)


def region_metrics(prefix: str, counts: Tensor) -> dict[str, float]:
    """Pixels and accuracy from :func:`region_counts`; an empty region has no accuracy."""
    metrics: dict[str, float] = {}
    for suffix, rows in zip(("", "_foreground"), counts.tolist(), strict=True):
        for region, (voxels, right) in zip(Region, rows, strict=True):
            metrics[f"{prefix}/pixels{suffix}/{region.name}"] = float(voxels)
            if voxels > 0:
                metrics[f"{prefix}/accuracy{suffix}/{region.name}"] = right / voxels
    return metrics


def dice_metrics(prefix: str, counts: Tensor, labels: Mapping[str, str]) -> dict[str, float]:
    """Dice of each structure from :func:`class_counts`; there is none of one that both sides lack."""
    metrics = {}
    for value, (both, reference, truth) in enumerate(counts.tolist()):
        if value > 0 and reference + truth > 0:
            metrics[f"{prefix}/dice/{labels[str(value)].replace(' ', '_')}"] = 2 * both / (reference + truth)
    return metrics
