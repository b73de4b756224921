# SPDX-License-Identifier: Apache-2.0
"""Four voxels of two classes, worked out by hand, through the public classes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metassl_monai.losses import (
    AdaptiveThreshold,
    FixedThreshold,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    Region,
    cross_entropy_dice,
)
from metassl_monai.losses import functional as F

REFERENCE = [(0.9, 0.1), (0.6, 0.4), (0.2, 0.8), (0.45, 0.55)]
PREDICTION = [(0.8, 0.2), (0.7, 0.3), (0.6, 0.4), (0.9, 0.1)]
TARGET = [0, 1, 1, 0]
UC, US, DC, DS = Region


def logits_of(rows: list[tuple[float, float]]) -> Tensor:
    """Logits (1, 2, 2, 2), float64, whose softmax is ``rows``."""
    return torch.tensor(rows, dtype=torch.float64).log().T.reshape(1, 2, 2, 2)


reference, prediction, target = logits_of(REFERENCE), logits_of(PREDICTION), torch.tensor(TARGET).reshape(1, 1, 2, 2)


def phi(rank: int, delta: float) -> float:
    return math.exp(-((rank * delta) ** 3))


# UC, DS, UC, DS with the labeled order UC > US > DS > DC
LABELED_WEIGHTS = [1.0, phi(2, 0.3), 1.0, phi(2, 0.3)]


def slow_dice(eps: float) -> float:
    """Eq. 8 with ``eps`` in numerator and denominator."""
    total = 0.0
    for c in range(2):
        above, below = eps, eps
        for w, p, y in zip(LABELED_WEIGHTS, PREDICTION, TARGET, strict=True):
            above += 2 * w * (y == c) * p[c]
            below += w * ((y == c) + p[c])
        total += above / below
    return 1 - total / 2


def slow_cross_entropy() -> float:
    """Eq. 7."""
    terms = [(w, -w * math.log(p[y])) for w, p, y in zip(LABELED_WEIGHTS, PREDICTION, TARGET, strict=True)]
    return sum(term for _, term in terms) / sum(w for w, _ in terms)


def unlabeled(delta: float = 0.6) -> MetaSSLUnlabeledLoss:
    return MetaSSLUnlabeledLoss(2, delta=delta, threshold=FixedThreshold(0.7))


def labeled() -> MetaSSLLabeledLoss:
    return MetaSSLLabeledLoss(2, delta=0.3, threshold=FixedThreshold(0.7))


def total_weight(loss: MetaSSLUnlabeledLoss | MetaSSLLabeledLoss) -> float:
    return (loss.region_counts * loss.region_weights()).sum().item()


def test_unlabeled_loss():
    loss = unlabeled()
    assert loss(prediction, reference).item() == pytest.approx(0.3423691, abs=1e-7)
    assert loss.regions.flatten().tolist() == [UC, US, DC, DS]
    assert loss.region_counts.tolist() == [1, 1, 1, 1]
    assert total_weight(loss) == pytest.approx(1.9863068, abs=2e-7)


def test_unlabeled_loss_without_weights():
    assert unlabeled(delta=0)(prediction, reference).item() == pytest.approx(0.9496736, abs=1e-7)


def test_unlabeled_loss_with_threshold_of_each_class():
    threshold = AdaptiveThreshold(2).eval()
    threshold.values.fill_(0.7)
    loss = MetaSSLUnlabeledLoss(2, threshold=threshold).eval()
    assert loss(prediction, reference).item() == pytest.approx(0.3423691, abs=1e-7)


def test_labeled_regions_and_total_weight():
    loss = labeled()
    loss(prediction, target, reference)
    assert loss.regions.flatten().tolist() == [UC, DS, UC, DS]
    assert loss.region_counts.tolist() == [2, 0, 0, 2]
    assert total_weight(loss) == pytest.approx(3.6114706, abs=2e-7)


def test_labeled_terms_as_printed_without_eps(monkeypatch):
    for module in (F, cross_entropy_dice):
        monkeypatch.setattr(module, "DICE_SMOOTH", 0.0)
    total = labeled()(prediction, target, reference).item()
    dice = F.soft_dice(prediction, target, torch.tensor(LABELED_WEIGHTS).double().reshape(1, 1, 2, 2)).item()
    assert dice == pytest.approx(0.4254592, abs=1e-7)
    assert total - dice == pytest.approx(0.6076224, abs=1e-7)
    assert total == pytest.approx(1.0330816, abs=1e-7)
    assert slow_dice(0.0) == pytest.approx(0.4254592, abs=1e-7)


def test_labeled_loss_with_its_eps():
    expected = slow_cross_entropy() + slow_dice(1e-5)
    assert slow_cross_entropy() == pytest.approx(0.6076224, abs=1e-7)
    assert abs(slow_dice(1e-5) - slow_dice(0.0)) > 1e-7  # eps is visible at the precision of the next line
    assert labeled()(prediction, target, reference).item() == pytest.approx(expected, abs=5e-8)


def test_labeled_loss_in_float32():
    value = labeled()(prediction.float(), target, reference.float()).item()
    assert value == pytest.approx(slow_cross_entropy() + slow_dice(1e-5), abs=1e-6)


@pytest.mark.parametrize(
    ("keep", "expected"), [(0.0, [0.75, 0.675]), (0.99, [0.5025, 0.50175]), (0.01, [0.7475, 0.67325])]
)
@pytest.mark.parametrize("build", [MetaSSLUnlabeledLoss, MetaSSLLabeledLoss])
def test_thresholds_after_one_call(build, keep, expected):
    loss = build(2, threshold=AdaptiveThreshold(2, keep=keep, initial=0.5))
    if build is MetaSSLLabeledLoss:
        loss(prediction, target, reference)
    else:
        loss(prediction, reference)
    assert loss.partition.threshold.values.tolist() == pytest.approx(expected, abs=1e-7)
