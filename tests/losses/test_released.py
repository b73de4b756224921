# SPDX-License-Identifier: Apache-2.0
"""The ``ref_*`` presets against the released scripts' equations in plain loops: two networks, several steps, a ramp."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from metassl_monai.losses import PRESETS, CrossEntropyDiceLoss, Region, metassl_losses

UC, US, DC, DS = Region
STEPS = 4


def decaying(top: float, step: float) -> list[float]:
    """The weight function of the paper at ranks 0 to 3, times ``top``."""
    return [top * math.exp(-((step * rank) ** 3)) for rank in range(4)]


class Script(NamedTuple):
    """What one released script does its own way; weights of UC, US, DC, DS."""

    labeled: tuple[float, ...]
    unlabeled: tuple[float, ...]
    cap: float
    spatial: tuple[int, ...]
    spread: float = 2.5  # of the logits drawn here: a cap shows only where networks are sure


wide, narrow = decaying(50, 0.6), decaying(50, 0.3)
geometric = (50, 50 / 1.25, 50 / (5 * 5 * 5 * 1.25 * 1.25 * 1.25), 50 / (5 * 1.25 * 1.25))
SCRIPTS = {
    "ref_cps2d": Script(tuple(decaying(85, 0.3)), tuple(wide), 1.0, (9, 8)),
    "ref_cct2d": Script((50, narrow[1], narrow[3], narrow[2]), (50, wide[1], wide[3], wide[2]), 1.0, (9, 8)),
    "ref_mt2d": Script((50, 50 / 1.4, 50 / 1.4**3, 50 / 1.4**2), geometric, 1.0, (9, 8)),
    "ref_3d": Script((50, 50 / 1.5, 50 / 1.5**3, 50 / 1.5**2), geometric, 0.9, (5, 4, 4), 5.0),
}
# the same weights as they were read off the scripts
PRINTED = {
    "ref_cps2d": ([85, 82.74, 68.49, 41.00], [50, 40.29, 8.882, 0.1466]),
    "ref_cct2d": ([50, 48.67, 24.12, 40.29], [50, 40.29, 0.1466, 8.882]),
    "ref_mt2d": ([50, 35.71, 18.22, 25.51], [50, 40, 0.2048, 6.4]),
    "ref_3d": ([50, 33.33, 14.81, 22.22], [50, 40, 0.2048, 6.4]),
}
every_script = pytest.mark.parametrize("preset", list(SCRIPTS))


def rows_of(logits: Tensor) -> list[list[float]]:
    """Logits of every voxel of the batch."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1]).tolist()


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in row)
    return [math.exp(v) / total for v in row]


def cross_entropy(row: list[float], label: int) -> float:
    return math.log(sum(math.exp(v) for v in row)) - row[label]


class Prediction:
    """What one network says of one stream, and the thresholds that belong to the two."""

    def __init__(self, classes: int, cap: float) -> None:
        self.thresholds = [0.9] * classes
        self.cap = cap
        self.capped_voxels = 0

    def see(self, rows: list[list[float]]) -> None:
        """Take in the logits of a batch and move the thresholds, before they are used."""
        self.rows = rows
        self.confidence = [max(softmax(row)) for row in rows]
        self.label = [row.index(max(row)) for row in rows]
        for c, old in enumerate(self.thresholds):
            mine = [k for k, y in zip(self.confidence, self.label, strict=True) if y == c]
            self.thresholds[c] = 0.5 * (sum(mine) / (len(mine) + 1)) + 0.5 * old

    def confident(self, x: int) -> bool:
        threshold = self.thresholds[self.label[x]]
        self.capped_voxels += self.cap < self.confidence[x] <= threshold
        return self.confidence[x] > min(threshold, self.cap)


def regions_of(judge: Prediction, partner: Prediction) -> list[str]:
    """Five regions: UC is split into foreground and background."""
    regions = []
    for x, (a, b) in enumerate(zip(judge.label, partner.label, strict=True)):
        confident = judge.confident(x)
        if a != b:
            regions.append("DC" if confident else "DS")
        elif confident:
            regions.append("UC foreground" if a != 0 else "UC background")
        else:
            regions.append("US")
    return regions


def heterogeneous(values: list[float], regions: list[str], weights: tuple[float, ...], slip: bool) -> float:
    """Sum of the weighted means over the regions, each divided by one voxel too many."""

    def mean(region: str) -> float:
        members = [v for v, r in zip(values, regions, strict=True) if r == region]
        return sum(members) / (len(members) + 1)

    foreground = mean("UC background" if slip else "UC foreground")
    unanimous = weights[0] * (foreground + mean("UC background"))
    return unanimous + weights[1] * mean("US") + weights[2] * mean("DC") + weights[3] * mean("DS")


def supervised(rows: list[list[float]], target: list[int]) -> float:
    """Half mean cross-entropy, half soft Dice over the batch with squares in the denominator."""
    p = [softmax(row) for row in rows]
    classes = len(rows[0])
    dice = 0.0
    for c in range(classes):
        above = sum(v[c] for v, y in zip(p, target, strict=True) if y == c)
        below = sum(v[c] ** 2 + (y == c) for v, y in zip(p, target, strict=True))
        dice += 1 - (2 * above + 1e-5) / (below + 1e-5)
    entropy = sum(cross_entropy(row, y) for row, y in zip(rows, target, strict=True))
    return 0.5 * (entropy / len(rows) + dice / classes)


def draw(random: torch.Generator, classes: int, script: Script, absent: bool) -> list[Tensor]:
    """Logits of two networks that agree in about half of the voxels, and an annotation; the last class may be absent.

    The networks are sure of the background, as real ones are.
    """
    spatial = script.spatial
    shape = (2, classes, *spatial)
    first, noise = (script.spread * torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(2))
    for logits in (first, noise):
        logits[:, 0] += 0.8 * script.spread
        logits[:, -1] -= 50 * absent
    follow = torch.rand((2, 1, *spatial), generator=random) < 0.5
    target = torch.randint(0, classes - absent, (2, 1, *spatial), generator=random)
    return [first, torch.where(follow, 0.8 * first, noise), target]


def compare_with_the_script(preset: str, classes: int, slip: bool) -> tuple[Counter, int]:
    """Train two networks for some steps in loops and with the losses; return the loops' regions and capped voxels."""
    script = SCRIPTS[preset]
    options = {"unanimous": "released"} if slip else {}
    pairs = [metassl_losses(classes, preset, **options) for _ in range(2)]
    slow = {(k, stream): Prediction(classes, script.cap) for k in range(2) for stream in ("L", "U")}
    random = torch.Generator().manual_seed(classes)
    seen: Counter = Counter()
    for step in range(STEPS):
        ramp = 0.1 * math.exp(-5 * (1 - step / (STEPS - 1)) ** 2)
        *labeled_logits, target = draw(random, classes, script, absent=step < 2)
        *unlabeled_logits, _ = draw(random, classes, script, absent=step < 2)
        annotation = [int(y) for y in target.flatten()]
        for k in range(2):
            slow[k, "L"].see(rows_of(labeled_logits[k]))
            slow[k, "U"].see(rows_of(unlabeled_logits[k]))
        for k, (labeled, unlabeled) in enumerate(pairs):
            own, partner = slow[k, "L"], slow[1 - k, "L"]
            regions = regions_of(own, partner)
            seen.update(regions)
            plain = supervised(own.rows, annotation)
            values = [cross_entropy(row, y) for row, y in zip(own.rows, annotation, strict=True)]
            expected = plain + ramp * heterogeneous(values, regions, script.labeled, slip)
            value = labeled(labeled_logits[k], target, labeled_logits[1 - k], ramp=ramp)
            assert value.dtype == torch.float64
            assert value.item() == pytest.approx(expected, rel=1e-6)
            check_state(labeled, own, regions)

            reference, student = slow[k, "U"], slow[1 - k, "U"]
            regions = regions_of(reference, student)
            seen.update(regions)
            values = [cross_entropy(row, y) for row, y in zip(student.rows, reference.label, strict=True)]
            value = unlabeled(unlabeled_logits[1 - k], unlabeled_logits[k])
            expected = heterogeneous(values, regions, script.unlabeled, slip)
            assert value.item() == pytest.approx(expected, rel=1e-6)
            check_state(unlabeled, reference, regions)
    return seen, sum(prediction.capped_voxels for prediction in slow.values())


def check_state(loss: torch.nn.Module, judge: Prediction, regions: list[str]) -> None:
    assert [Region(int(r)).name for r in loss.regions.flatten()] == [region[:2] for region in regions]
    assert loss.region_counts.tolist() == [sum(r[:2] == region.name for r in regions) for region in Region]
    of_foreground = [r[:2] for r, y in zip(regions, judge.label, strict=True) if y != 0]
    assert loss.foreground_counts.tolist() == [of_foreground.count(region.name) for region in Region]
    assert loss.partition.threshold.values.tolist() == pytest.approx(judge.thresholds, abs=1e-6)


@pytest.mark.parametrize("slip", [False, True], ids=["split", "released-slip"])
@pytest.mark.parametrize("classes", [3, 4])
@every_script
def test_the_losses_equal_the_script(preset, classes, slip):
    seen, capped = compare_with_the_script(preset, classes, slip)
    assert min(seen[region] for region in ("UC background", "UC foreground", "US", "DC", "DS")) >= 5, seen
    assert (capped > 0) == (preset == "ref_3d")  # the cap is at work exactly where there is one


@every_script
def test_the_weights_of_the_table(preset):
    labeled, unlabeled = metassl_losses(4, preset)
    for loss, printed, computed in zip((labeled, unlabeled), PRINTED[preset], SCRIPTS[preset][:2], strict=True):
        actual = [loss.scale * loss.region_weights()[region].item() for region in (UC, US, DC, DS)]
        assert actual == pytest.approx(printed, rel=5e-4)  # four digits, some of them cut off
        assert actual == pytest.approx(computed, rel=1e-6)


@every_script
def test_the_thresholds_of_the_scripts(preset):
    for loss in metassl_losses(4, preset):
        threshold = loss.partition.threshold
        assert (threshold.keep, threshold.absent, threshold.cap) == (0.5, "decay", SCRIPTS[preset].cap)
        assert threshold.values.tolist() == pytest.approx([0.9] * 4)


@every_script
def test_without_the_ramp_only_the_plain_supervised_loss_is_left(preset):
    first, second, target = draw(torch.Generator().manual_seed(0), 3, SCRIPTS[preset], absent=False)
    labeled, _ = metassl_losses(3, preset)
    expected = CrossEntropyDiceLoss()(first, target)
    torch.testing.assert_close(labeled(first, target, second, ramp=0.0), expected)
    assert labeled(first, target, second) > 10 * expected  # a ramp of 1 is the default


def test_the_slip_counts_background_twice_and_foreground_not_at_all():
    """Two background voxels and one foreground voxel, all unanimous and confident, each at cross-entropy e."""
    sure, unsure = torch.tensor([20.0, 0.0]), torch.tensor([0.5, 0.0])
    rows = [(sure, unsure), (sure, unsure), (sure.flip(0), unsure.flip(0))]
    reference, input = (torch.stack([row[i] for row in rows], dim=1)[None].double() for i in range(2))
    e = math.log(1 + math.exp(-0.5))
    expected = {"joint": 3 / 4, "split": 2 / 3 + 1 / 2, "released": 2 * 2 / 3}
    for unanimous, factor in expected.items():
        _, loss = metassl_losses(2, "ref_3d", unanimous=unanimous)
        student = input.clone().requires_grad_()
        value = loss(student, reference)
        value.backward()
        assert loss.region_counts.tolist() == [3, 0, 0, 0]
        assert loss.foreground_counts.tolist() == [1, 0, 0, 0]
        assert value.item() == pytest.approx(50 * e * factor, rel=1e-6)
        assert (student.grad[..., 2] == 0).all() == (unanimous == "released")


@every_script
def test_both_losses_split_the_unanimous_region_and_the_labeled_one_follows_the_script(preset):
    for loss in metassl_losses(4, preset):
        assert (loss.unanimous, loss.normalization) == ("split", "region")
    labeled, _ = metassl_losses(4, preset)
    assert (labeled.judge, labeled.discrepancy, labeled.dice, labeled.ramped) == ("self", "pair", False, True)
    assert isinstance(labeled.base, CrossEntropyDiceLoss)


def test_every_released_preset_is_covered():
    assert {preset for preset in PRESETS if preset.startswith("ref_")} == set(SCRIPTS) == set(PRINTED)
