# SPDX-License-Identifier: Apache-2.0
"""The MetaSSL losses against plain Python loops over voxels, written from Eq. 1-10 and sharing no code with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metassl_monai.losses import (
    AdaptiveThreshold,
    CrossEntropyDiceLoss,
    FixedThreshold,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    ReleasedLabeledLoss,
    ReleasedUnlabeledLoss,
)

few = settings(max_examples=25, deadline=None, derandomize=True)
shapes = st.sampled_from([(1, 3, 4), (2, 3, 3), (2, 2, 3, 2), (1, 3, 2, 3)])  # batch, 2D or 3D


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    exp = [math.exp(v - top) for v in row]
    return [v / sum(exp) for v in exp]


def voxels_of(logits: Tensor) -> list[list[float]]:
    """Class probabilities of every voxel of the batch, one list a voxel."""
    rows = logits.detach().movedim(1, -1).reshape(-1, logits.shape[1]).tolist()
    return [softmax(row) for row in rows]


def numbers_of(values: Tensor) -> list[float]:
    return values.flatten().tolist()


def slow_phi(name: str, u: float, beta: float) -> float:
    if name == "gaussian":
        return math.exp(-(u**beta))
    if name == "linear":
        return max(1 - u / 2, 0)
    if name == "reciprocal":
        return (u + 1) ** -1
    return 0.5 * math.cos(u) + 0.5


def slow_confidence(name: str, p: list[float], label: int) -> float:
    n, mean = len(p), 1 / len(p)
    variance = n**2 / (n - 1) * (1 / n) * sum((v - mean) ** 2 for v in p)
    return {
        "probability": p[label],
        "variance": variance,
        "std": math.sqrt(variance),
        "mad": n**2 / (2 * (n - 1)) * (1 / n) * sum(abs(v - mean) for v in p),
    }[name]


# rank of each region, for unlabeled and for labeled data (Eq. 6, Sec. III-C); a bisection has two ranks
RANKS = {
    ("quad", False): {"UC": 0, "US": 1, "DC": 2, "DS": 3},
    ("quad", True): {"UC": 0, "US": 1, "DS": 2, "DC": 3},
    ("confidence", False): {"UC": 0, "US": 1},
    ("confidence", True): {"UC": 0, "US": 1},
    ("consistency", False): {"UC": 0, "DC": 1},
    ("consistency", True): {"UC": 0, "DC": 1},
}


@dataclass
class SlowMetaSSL:
    """One loss with its thresholds, in loops."""

    labeled: bool
    delta: float
    thresholds: list[float]
    keep: float | None = 0.99  # None: fixed thresholds
    beta: float = 3.0
    phi: str = "gaussian"
    scale: float = 1.0
    normalization: str = "total"
    confidence: str = "probability"
    mode: str = "quad"
    weights: tuple[float, ...] | None = None  # of UC, US, DC, DS
    judge: str = "reference"
    discrepancy: str = "annotation"
    dice_term: bool = True
    y_judge: list[int] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)

    def __call__(
        self,
        input: Tensor,
        reference: Tensor,
        target: Tensor | None = None,
        label: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> float:
        p, q = voxels_of(input), voxels_of(reference)
        every = range(len(p))
        inside = [x for x in every if mask is None or numbers_of(mask)[x]]
        y_ref = [v.index(max(v)) for v in q] if label is None else [int(v) for v in numbers_of(label)]
        own = [v.index(max(v)) for v in p]
        judge, self.y_judge, partner = (p, own, y_ref) if self.judge == "self" else (q, y_ref, own)
        supervision = y_ref if target is None else [int(v) for v in numbers_of(target)]
        other = partner if target is None or self.discrepancy == "pair" else supervision
        kappa = [slow_confidence(self.confidence, judge[x], self.y_judge[x]) for x in every]
        self.update(kappa, self.y_judge, inside)
        self.regions = [self.region(self.y_judge[x], other[x], kappa[x]) for x in every]
        weight = [self.weight(r) for r in self.regions]
        loss = self.cross_entropy(p, supervision, weight, inside)
        if self.labeled and self.dice_term:
            loss += self.dice(p, supervision, weight, inside)
        return self.scale * loss

    def weight(self, region: str) -> float:
        if self.weights is not None:
            return self.weights[["UC", "US", "DC", "DS"].index(region)]
        return slow_phi(self.phi, RANKS[self.mode, self.labeled][region] * self.delta, self.beta)

    def update(self, kappa: list[float], y_ref: list[int], inside: list[int]) -> None:
        for c in range(len(self.thresholds)):
            members = [kappa[x] for x in inside if y_ref[x] == c]
            if members and self.keep is not None:
                observed = sum(members) / len(members)
                self.thresholds[c] = self.keep * self.thresholds[c] + (1 - self.keep) * observed

    def region(self, y_ref: int, other: int, kappa: float) -> str:
        first = "U" if y_ref == other or self.mode == "confidence" else "D"
        second = "C" if kappa > self.thresholds[y_ref] or self.mode == "consistency" else "S"
        return first + second

    def cross_entropy(self, p: list[list[float]], y: list[int], weight: list[float], inside: list[int]) -> float:
        if self.normalization == "total":
            total = sum(weight[x] for x in inside)
            if total == 0:  # the linear function reaches 0
                return 0.0
            return sum(-weight[x] * math.log(p[x][y[x]]) for x in inside) / total
        loss = 0.0
        for region in ("UC", "US", "DC", "DS"):
            members = [x for x in inside if self.regions[x] == region]
            loss += sum(-weight[x] * math.log(p[x][y[x]]) for x in members) / (len(members) + 1)
        return loss

    def dice(self, p: list[list[float]], y: list[int], weight: list[float], inside: list[int]) -> float:
        classes = len(p[0])
        overlap = 0.0
        for c in range(classes):
            above = sum(2 * weight[x] * (y[x] == c) * p[x][c] for x in inside)
            below = sum(weight[x] * ((y[x] == c) + p[x][c]) for x in inside)
            overlap += (above + 1e-5) / (below + 1e-5)
        return 1 - overlap / classes


def compare(labeled: bool, seed: int, classes: int, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """Three calls in a row, so that the thresholds move; loss, regions, counts and thresholds must agree each time."""
    options = dict(options)
    with_label, with_mask = options.pop("with_label"), options.pop("with_mask")
    keep, initial = options.pop("keep"), options.pop("initial")
    threshold = FixedThreshold(initial) if keep is None else AdaptiveThreshold(classes, keep=keep, initial=initial)
    build = MetaSSLLabeledLoss if labeled else MetaSSLUnlabeledLoss
    build = ReleasedLabeledLoss if {"judge", "discrepancy", "dice"} & options.keys() else build
    loss = build(classes, threshold=threshold, **options)
    options["dice_term"] = options.pop("dice", True)
    slow = SlowMetaSSL(labeled, keep=keep, thresholds=[initial] * classes, **options)
    random = torch.Generator().manual_seed(seed)
    batch, *spatial = shape

    def draw() -> dict[str, Any]:
        logits = (batch, classes, *spatial)
        arguments: dict[str, Any] = {
            name: 2 * torch.randn(logits, generator=random, dtype=torch.float64) for name in ("input", "reference")
        }
        # half of the voxels of the prediction follow the reference, so that no region stays rare
        follow = torch.rand((batch, 1, *spatial), generator=random) < 0.5
        arguments["input"] = torch.where(follow, arguments["reference"] + 0.1, arguments["input"])
        follow = torch.rand((batch, 1, *spatial), generator=random) < 0.5
        maps = [torch.randint(0, classes, (batch, 1, *spatial), generator=random) for _ in range(2)]
        if labeled:
            arguments["target"] = torch.where(follow, arguments["reference"].argmax(1, keepdim=True), maps[0])
        if with_label:
            arguments["label"] = maps[1]
        if with_mask:
            mask = torch.rand((batch, 1, *spatial), generator=random) < 0.6
            mask.view(-1)[0] = True
            arguments["mask"] = mask
        return arguments

    for _ in range(3):
        arguments = draw()
        expected = slow(**arguments)
        assert loss(**arguments).item() == pytest.approx(expected, rel=2e-6, abs=1e-7)
        names = ["UC", "US", "DC", "DS"]
        assert [names[int(r)] for r in loss.regions.flatten()] == slow.regions
        inside = arguments.get("mask", torch.ones(batch, 1, *spatial)).flatten().tolist()
        counts = [sum(r == name and bool(m) for r, m in zip(slow.regions, inside, strict=True)) for name in names]
        assert loss.region_counts.tolist() == counts
        voxels = list(zip(slow.regions, slow.y_judge, inside, strict=True))
        counts = [sum(r == name and y != 0 and bool(m) for r, y, m in voxels) for name in names]
        assert loss.foreground_counts.tolist() == counts
        if keep is not None:
            assert threshold.values.tolist() == pytest.approx(slow.thresholds, abs=1e-6)


option_sets = st.fixed_dictionaries(
    {
        "delta": st.sampled_from([0.0, 0.3, 0.6, 0.7]),
        "beta": st.sampled_from([1.0, 2.0, 3.0]),
        "phi": st.sampled_from(["gaussian", "linear", "reciprocal", "cosine"]),
        "scale": st.sampled_from([1.0, 0.1, 50.0]),
        "normalization": st.sampled_from(["total", "region"]),
        "confidence": st.sampled_from(["probability", "mad", "variance", "std"]),
        "keep": st.sampled_from([None, 0.01, 0.5, 0.99]),
        "initial": st.sampled_from([0.5, 0.7, 0.9]),
        "with_label": st.booleans(),
        "with_mask": st.booleans(),
    }
)


@given(seed=st.integers(0, 2**31), classes=st.integers(2, 8), shape=shapes, options=option_sets)
@few
def test_unlabeled_equals_the_loop(seed, classes, shape, options):
    compare(False, seed, classes, shape, options)


labeled_sets = st.fixed_dictionaries(
    {
        "judge": st.sampled_from(["reference", "self"]),
        "discrepancy": st.sampled_from(["annotation", "pair"]),
        "dice": st.booleans(),
    }
)


@given(seed=st.integers(0, 2**31), classes=st.integers(2, 8), shape=shapes, options=option_sets, more=labeled_sets)
@few
def test_labeled_equals_the_loop(seed, classes, shape, options, more):
    compare(True, seed, classes, shape, {**options, **more})


DEFAULTS = {"delta": 0.6, "keep": 0.99, "initial": 0.5, "with_label": False, "with_mask": False}


@pytest.mark.parametrize("labeled", [False, True], ids=["unlabeled", "labeled"])
@pytest.mark.parametrize("normalization", ["total", "region"])
@pytest.mark.parametrize("mode", ["quad", "confidence", "consistency"])
def test_bisections_weigh_phi_0_and_phi_delta(labeled, normalization, mode):
    for classes in (2, 4):
        options = {**DEFAULTS, "mode": mode, "normalization": normalization, "initial": 0.7}
        compare(labeled, 5, classes, (2, 3, 4), options)


@pytest.mark.parametrize("labeled", [False, True], ids=["unlabeled", "labeled"])
@pytest.mark.parametrize("normalization", ["total", "region"])
@pytest.mark.parametrize(
    ("mode", "weights"),
    [
        ("quad", (50.0, 40.0, 0.2048, 6.4)),
        ("quad", (1.0, 0.0, 0.5, 0.0)),
        ("confidence", (0.9, 0.2, 7.0, 7.0)),  # what a bisection never assigns has no say
        ("consistency", (0.9, 7.0, 0.2, 7.0)),
    ],
)
def test_weights_as_they_are_given(labeled, normalization, mode, weights):
    options = {**DEFAULTS, "mode": mode, "normalization": normalization, "initial": 0.7, "weights": weights}
    compare(labeled, 5, 4, (2, 3, 4), options)


@pytest.mark.parametrize("judge", ["reference", "self"])
@pytest.mark.parametrize("discrepancy", ["annotation", "pair"])
@pytest.mark.parametrize("dice", [False, True])
def test_forms_of_the_labeled_loss(judge, discrepancy, dice):
    options = {**DEFAULTS, "initial": 0.7, "judge": judge, "discrepancy": discrepancy, "dice": dice}
    for with_mask in (False, True):
        compare(True, 9, 3, (2, 3, 4), {**options, "with_mask": with_mask})
        compare(True, 9, 3, (2, 3, 4), {**options, "with_label": True, "with_mask": with_mask})


def test_ramp_and_base_of_the_labeled_loss():
    """Only the weighted part is ramped, and only where asked; the base stands beside it."""
    random = torch.Generator().manual_seed(0)
    input, reference = (torch.randn(2, 3, 4, 4, generator=random, dtype=torch.float64) for _ in range(2))
    target = torch.randint(0, 3, (2, 1, 4, 4), generator=random)
    mask = torch.rand(2, 1, 4, 4, generator=random) < 0.5

    def value(ramp: float, **options: Any) -> Tensor:
        return ReleasedLabeledLoss(3, scale=2.0, **options)(input, target, reference, mask=mask, ramp=ramp)

    base, plain = CrossEntropyDiceLoss(), value(1.0)
    beside = base(input, target, mask=mask)
    torch.testing.assert_close(value(0.3), plain)
    torch.testing.assert_close(value(0.3, ramped=True), 0.3 * plain)
    torch.testing.assert_close(value(0.3, base=base), plain + beside)
    torch.testing.assert_close(value(0.3, ramped=True, base=base), 0.3 * plain + beside)


@pytest.mark.parametrize("labeled", [False, True], ids=["unlabeled", "labeled"])
@pytest.mark.parametrize("with_label", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_default_settings_equal_the_loop(labeled, with_label, with_mask):
    for classes, shape in ((2, (2, 4, 4)), (5, (2, 2, 3, 3))):
        compare(labeled, 7, classes, shape, {**DEFAULTS, "with_label": with_label, "with_mask": with_mask})


@pytest.mark.parametrize("build", [MetaSSLLabeledLoss, MetaSSLUnlabeledLoss])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"normalization": "mean"}, ["normalization='mean'", "total", "region"]),
        ({"phi": "cubic"}, ["phi='cubic'", "gaussian"]),
        ({"delta": -1.0}, ["delta=-1.0"]),
        ({"confidence": "tcp"}, ["confidence='tcp'", "probability"]),
        ({"mode": "half"}, ["mode='half'", "quad"]),
        ({"order": (0, 1, 2)}, ["order="]),
        ({"weights": (1, 1, 1)}, ["weights=", "four", "UC, US, DC and DS"]),
        ({"weights": (1, 1, 1, -1)}, ["weights=", "none negative"]),
    ],
)
def test_unknown_options_are_named(build, options, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        build(3, **options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("build", [ReleasedLabeledLoss, ReleasedUnlabeledLoss])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unanimous": "both", "normalization": "region"}, ["unanimous='both'", "joint", "split", "released"]),
        ({"unanimous": "split"}, ["unanimous='split'", "normalization='region'"]),
        ({"phi": "cubic"}, ["phi='cubic'", "gaussian"]),
    ],
)
def test_unknown_options_of_the_released_form_are_named(build, options, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        build(3, **options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("build", [MetaSSLLabeledLoss, MetaSSLUnlabeledLoss])
def test_the_paper_has_no_arguments_of_the_release(build):
    for name in ("judge", "discrepancy", "dice", "ramped", "base", "unanimous"):
        with pytest.raises(TypeError, match=name):
            build(3, **{name: None})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"judge": "partner"}, ["judge='partner'", "reference", "self"]),
        ({"discrepancy": "target"}, ["discrepancy='target'", "annotation", "pair"]),
    ],
)
def test_unknown_options_of_the_labeled_loss_are_named(options, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        ReleasedLabeledLoss(3, **options)
    assert all(word in str(error.value) for word in words)
