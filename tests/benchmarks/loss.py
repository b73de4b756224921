# SPDX-License-Identifier: Apache-2.0
"""Cost of the losses of one CPS step, forward and backward: ``python tests/benchmarks/loss.py [--out FILE]``.

The logits of two networks on 12 labeled and 12 unlabeled images, each network judged by the other on both. Beside
MONAI's ``DiceCELoss`` with cross-entropy on pseudo-labels by ``argmax``, and beside the way of the authors' release,
which takes the cross-entropy anew for each region.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from measuring import CUDA, environment, in_turn, show, summary, write
from monai.losses import DiceCELoss
from torch import Tensor, nn

from metassl_monai.losses import CrossEntropyDiceLoss, PseudoLabelLoss, metassl_losses

DEVICE = torch.device("cuda" if CUDA else "cpu")
SHAPES = {"24 x 4 x 256 x 256": (24, 4, 256, 256), "24 x 4 x 128 x 128": (24, 4, 128, 128)}
SHAPES |= {"12 x 4 x 256 x 256": (12, 4, 256, 256), "24 x 8 x 256 x 256": (24, 8, 256, 256)}
SHAPES |= {"4 x 2 x 112 x 112 x 80": (4, 2, 112, 112, 80)}
FULL = "24 x 4 x 256 x 256"
BASE = "MONAI DiceCELoss + cross-entropy, argmax"


class Step:
    """Logits of two networks and the annotation of the first half of the batch."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        self.half = shape[0] // 2
        self.first, self.second = (_smooth(shape).to(DEVICE).requires_grad_() for _ in range(2))
        self.target = _smooth(shape)[: self.half].max(1, keepdim=True).indices.to(DEVICE)

    def sum(self, labeled: Callable[..., Tensor], unlabeled: Callable[..., Tensor]) -> Tensor:
        """Both losses of both networks; losses are called with their number, so that each pair has its own state."""
        loss = 0
        first, second = (logits.split([self.half, len(logits) - self.half]) for logits in (self.first, self.second))
        for number, (own, other) in enumerate(((first, second), (second, first))):
            loss = loss + labeled(number, own[0], self.target, other[0])
            loss = loss + unlabeled(number, own[1], other[1])
        return loss  # type: ignore[return-value]

    def backward(self, labeled: Callable[..., Tensor], unlabeled: Callable[..., Tensor]) -> None:
        self.first.grad = self.second.grad = None
        self.sum(labeled, unlabeled).backward()

    def kept(self, labeled: Callable[..., Tensor], unlabeled: Callable[..., Tensor]) -> float:
        """Bytes kept for the backward pass, as a multiple of the logits'."""
        sizes = {}

        def note(x: Tensor) -> Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            loss = self.sum(labeled, unlabeled)
        del loss
        return sum(sizes.values()) / (self.first.nbytes + self.second.nbytes)


def _smooth(shape: tuple[int, ...]) -> Tensor:
    """Logits with large regions, as a network's, and some noise."""
    coarse = torch.randn(*shape[:2], *(side // 16 for side in shape[2:]))
    mode = "bilinear" if len(shape) == 4 else "trilinear"
    return 4 * F.interpolate(coarse, size=shape[2:], mode=mode) + 0.3 * torch.randn(shape)


def monai_losses() -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    labeled = DiceCELoss(to_onehot_y=True, softmax=True)
    return (
        lambda number, input, target, reference: labeled(input, target),
        lambda number, input, reference: F.cross_entropy(input, reference.detach().argmax(1)),
    )


def losses_of(labeled: nn.Module, unlabeled: nn.Module) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    pairs = [copy.deepcopy(nn.ModuleList([labeled, unlabeled])).to(DEVICE) for _ in range(2)]
    return lambda number, *maps: pairs[number][0](*maps), lambda number, *maps: pairs[number][1](*maps)


class RegionByRegion:
    """The preset ``ref_cps2d``, one cross-entropy for each region and no step shared."""

    def __init__(self) -> None:
        self.thresholds: dict[tuple[int, str], Tensor] = {}
        self.supervised = DiceCELoss(
            to_onehot_y=True, softmax=True, squared_pred=True, batch=True, lambda_dice=0.5, lambda_ce=0.5
        )

    def labeled(self, number: int, input: Tensor, target: Tensor, reference: Tensor) -> Tensor:
        weights = [85 * math.exp(-((0.3 * rank) ** 3)) for rank in range(4)]
        regions = self._regions((number, "labeled"), input, reference)
        return self.supervised(input, target) + self._means(input, target[:, 0], regions, weights)

    def unlabeled(self, number: int, input: Tensor, reference: Tensor) -> Tensor:
        weights = [50 * math.exp(-((0.6 * rank) ** 3)) for rank in range(4)]
        regions = self._regions((number, "unlabeled"), reference, input)
        return self._means(input, reference.detach().argmax(1), regions, weights)

    def _regions(self, state: tuple[int, str], judge: Tensor, partner: Tensor) -> list[Tensor]:
        probability = judge.detach().softmax(1)
        confidence, label = probability.max(1)
        classes = judge.shape[1]
        threshold = self.thresholds.setdefault(state, torch.full((classes,), 0.9, device=judge.device))
        for c in range(classes):
            mine = (label == c).float()
            threshold[c] = 0.5 * (confidence * mine).sum() / (mine.sum() + 1) + 0.5 * threshold[c]
        sure = confidence > threshold[label]
        same = label == partner.detach().argmax(1)
        background = label == 0
        return [same & sure & background, same & sure & ~background, same & ~sure, ~same & sure, ~same & ~sure]

    @staticmethod
    def _means(input: Tensor, target: Tensor, regions: list[Tensor], weights: list[float]) -> Tensor:
        total = 0
        for region, weight in zip(regions, [weights[0], *weights], strict=True):
            inside = region.float()
            cross_entropy = F.cross_entropy(input, target, reduction="none")
            total = total + weight * (cross_entropy * inside).sum() / (inside.sum() + 1)
        return total  # type: ignore[return-value]


def measure(shape: tuple[int, ...], repeats: int, compiled: bool) -> dict:
    step, slow = Step(shape), RegionByRegion()
    variants = {BASE: monai_losses()}
    for preset in ("paper", "ref_cps2d"):
        variants[f"MetaSSL {preset}"] = losses_of(*metassl_losses(shape[1], preset))
    variants["plain CPS"] = losses_of(CrossEntropyDiceLoss(), PseudoLabelLoss())
    fast = losses_of(*metassl_losses(shape[1], "ref_cps2d"))
    torch.testing.assert_close(step.sum(*fast), step.sum(slow.labeled, slow.unlabeled), rtol=1e-5, atol=0)
    variants["region by region (ref_cps2d)"] = slow.labeled, slow.unlabeled
    works = {name: partial(step.backward, *pair) for name, pair in variants.items()}
    if compiled:
        whole = torch.compile(lambda: step.sum(*variants["MetaSSL paper"]))
        works["MetaSSL paper, compiled"] = lambda: whole().backward()
    found = summary(in_turn(works, repeats), BASE)
    for name, pair in variants.items():
        found[name]["kept"] = round(step.kept(*pair), 3)
    return found


def traffic_floor_ms(shape: tuple[int, ...]) -> float:
    """Both networks' logits read twice and their gradients written, and 4 bytes a voxel, at the speed of a copy."""
    logits = torch.empty(shape, device=DEVICE)
    big = torch.empty(1 << 28, device=DEVICE)
    copied = summary(in_turn({"copy": lambda: big.clone()}, 15), "copy")["copy"]["ms"]
    return copied * (6 * logits.nbytes + 4 * logits.nelement() / shape[1]) / (2 * big.nbytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sys.stdout.write(f"{environment()}\n")
    results = {}
    for name in options.shapes:
        found = measure(SHAPES[name], options.repeats, options.compiled and name == FULL)
        show(name, found)
        results[name] = {"losses": found, **({"traffic_floor_ms": traffic_floor_ms(SHAPES[name])} if CUDA else {})}
    for name, row in results.get(FULL, {"losses": {}})["losses"].items():
        sys.stdout.write(f"{name:46} keeps {row.get('kept', math.nan):.2f} times the logits\n")
    write(options.out, {"about": __doc__, "shapes": results})


if __name__ == "__main__":
    main()
