# SPDX-License-Identifier: Apache-2.0
"""Unlabeled pairs as the losses judge them, and what can be counted beside hidden annotations of their images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.data import decollate_batch, list_data_collate
from torch import Tensor

from metassl_monai.losses import Region

__all__ = [
    "JudgedPair",
    "class_counts",
    "dice_metrics",
    "judge",
    "pairs_and_images",
    "region_counts",
    "region_metrics",
    "samples_of",
]


class JudgedPair(NamedTuple):
    """An unlabeled pair; all ``(B, 1, *spatial)``, the image with its channels."""

    image: Tensor
    reference: Tensor
    """Label of the reference."""
    prediction: Tensor
    """Label of the prediction."""
    inside: Tensor
    """Where the pair counts."""
    regions: Tensor | None
    """:class:`Region` of every voxel, None where the loss has none."""


def judge(engine: Any, labeled: Any, unlabeled: Mapping[str, Any]) -> Iterator[tuple[str, JudgedPair, slice]]:
    """Make the unlabeled pairs of a batch as a trainer's method does now; see :func:`undisturbed` for leaving no trace.

    Args:
        engine: the trainer.
        labeled: a batch of labeled samples, for methods that mix images.
        unlabeled: a batch of unlabeled samples.

    Yields:
        The name of each pair, the pair, and which of the unlabeled images it is about.

    Raises:
        ValueError: when it cannot be told which images a pair is about.
    """
    method, count = engine.unwrapped_method, len(unlabeled["image"])
    # methods that mix images take as many labeled ones
    streams = {"labeled": _repeated(labeled, count), "unlabeled": unlabeled}
    streams = engine.prepare_batch(streams, engine.state.device, engine.non_blocking, **engine.to_kwargs)
    for pair, part in pairs_and_images(method.pairs(streams, engine.state.iteration).pairs, count):
        yield pair.name, _judged(pair, method.unlabeled_losses[pair.name], streams["unlabeled"]["image"][part]), part


def samples_of(pairs: Sequence[JudgedPair], count: int) -> JudgedPair:
    """Return some samples of pairs with images of one size as one pair: the first ones of each, in equal numbers.

    Args:
        pairs: at least one; there are no regions where one of them has none.
        count: number of samples, where there are as many.
    """
    each = math.ceil(count / len(pairs))
    columns = zip(*((None if it is None else it[:each] for it in pair) for pair in pairs), strict=True)
    known = (None if any(it is None for it in column) else torch.cat(column)[:count] for column in columns)
    return JudgedPair(*known)  # type: ignore[arg-type]


def _judged(pair: Any, loss: Any, image: Tensor) -> JudgedPair:
    prediction = pair.prediction.max(dim=1, keepdim=True).indices
    reference = pair.reference.max(dim=1, keepdim=True).indices if pair.label is None else pair.label
    inside = torch.ones_like(reference, dtype=torch.bool) if pair.mask is None else pair.mask != 0
    partition = getattr(loss, "partition", None)
    regions = None if partition is None else partition(pair.reference, prediction, pair.label, pair.mask)
    return JudgedPair(image, reference, prediction, inside, regions)


def _repeated(batch: Any, count: int) -> Any:
    """Return ``count`` samples of a batch, which MONAI's engines have taken apart unless told not to."""
    samples = decollate_batch(batch) if isinstance(batch, Mapping) else batch
    return list_data_collate([samples[i % len(samples)] for i in range(count)])


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


def class_counts(judged: JudgedPair, truth: Tensor, num_classes: int) -> Tensor:
    """Voxels by class where reference and truth have it, where the reference has it, and where the truth has it."""
    rows = []
    for c in range(num_classes):
        reference, annotated = (judged.reference == c) & judged.inside, (truth == c) & judged.inside
        rows.append(torch.stack([(reference & annotated).sum(), reference.sum(), annotated.sum()]))
    return torch.stack(rows)


def region_counts(judged: JudgedPair, truth: Tensor) -> Tensor:
    """Voxels and right ones by region, shape ``(2, 4, 2)``: among all, and among the reference's foreground."""
    right = judged.reference == truth
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
