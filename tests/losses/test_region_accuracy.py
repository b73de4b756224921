# SPDX-License-Identifier: Apache-2.0
"""Measured weights against plain Python loops over voxels, what moves them and what they move, who shares them."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metassl_monai.losses import (
    CrossEntropyDiceLoss,
    FixedThreshold,
    FixedWeights,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    MonitoredLoss,
    PseudoLabelLoss,
    Region,
    RegionAccuracyWeights,
    metassl_losses,
)
from metassl_monai.methods import CrossPseudoSupervision

few = settings(max_examples=20, deadline=None, derandomize=True)


class Batch(NamedTuple):
    """What both losses may be given; the label and the mask may be None."""

    input: Tensor
    target: Tensor
    reference: Tensor
    label: Tensor | None
    mask: Tensor | None


def make_batch(seed: int, classes: int = 3, extras: bool = True, absent: bool = False) -> Batch:
    """Two images in which input and annotation follow the reference in half of the voxels."""
    random = torch.Generator().manual_seed(seed)
    maps = (2, 1, 6, 5)
    input, reference = (2 * torch.randn(2, classes, 6, 5, generator=random, dtype=torch.float64) for _ in range(2))
    if absent:
        reference[:, -1] = -1e4
    follow = [torch.rand(maps, generator=random) < 0.5 for _ in range(2)]
    any_class = [torch.randint(0, classes - absent, maps, generator=random) for _ in range(2)]
    target = torch.where(follow[0], reference.argmax(dim=1, keepdim=True), any_class[0])
    mask = torch.rand(maps, generator=random) < 0.6
    input = torch.where(follow[1], reference, input)
    return Batch(input, target, reference, *((any_class[1], mask) if extras else (None, None)))


def call(losses: tuple[nn.Module, nn.Module], labeled: Batch, unlabeled: Batch) -> tuple[Tensor, Tensor]:
    """Both losses as a method calls them: the unlabeled loss sees the labeled images after the labeled loss."""
    value = losses[0](*labeled)
    losses[1].measure(*labeled)
    return value, losses[1](unlabeled.input, *unlabeled[2:])


class SlowLosses:
    """Both losses and all that they keep, one voxel at a time."""

    def __init__(self, classes: int, keep: float) -> None:
        self.classes, self.keep = classes, keep
        self.thresholds = [0.5] * classes
        self.right = {(r, c): 1.0 for r in range(4) for c in range(classes)}
        self.total = dict(self.right)

    def voxels(self, batch: Batch) -> list[tuple[list[float], int, int, float, int]]:
        """Probabilities and label of the prediction, label and confidence of the reference, annotation."""
        found = []
        for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(6), torch.arange(5)).tolist():
            if batch.mask is not None and not batch.mask[b, 0, i, j]:
                continue
            p, q = (
                [math.exp(v) / sum(map(math.exp, logits)) for v in logits]
                for logits in (batch.input[b, :, i, j].tolist(), batch.reference[b, :, i, j].tolist())
            )
            c = q.index(max(q)) if batch.label is None else int(batch.label[b, 0, i, j])
            found.append((p, p.index(max(p)), c, q[c], int(batch.target[b, 0, i, j])))
        return found

    def region(self, y: int, c: int, confidence: float) -> int:
        if y == c:
            return 0 if confidence > self.thresholds[c] else 1
        return 2 if confidence > self.thresholds[c] else 3

    def labeled(self, batch: Batch, training: bool) -> float:
        voxels = self.voxels(batch)
        cross_entropy = sum(-math.log(p[t]) for p, _, _, _, t in voxels) / len(voxels)
        dice = 0.0
        for k in range(self.classes):
            hit = sum(p[k] for p, _, _, _, t in voxels if t == k)
            size = sum(p[k] + (t == k) for p, _, _, _, t in voxels)
            dice += (2 * hit + 1e-5) / (size + 1e-5) / self.classes
        cells = [(self.region(y, c, confidence), c, c == t) for _, y, c, confidence, t in voxels]
        for cell in {(r, c) for r, c, _ in cells} if training else ():
            hits = [right for r, c, right in cells if (r, c) == cell]
            self.right[cell] = self.keep * self.right[cell] + sum(hits)
            self.total[cell] = self.keep * self.total[cell] + len(hits)
        return cross_entropy + 1 - dice

    def unlabeled(self, batch: Batch, training: bool) -> float:
        voxels = self.voxels(batch)
        for k in range(self.classes if training else 0):
            members = [confidence for _, _, c, confidence, _ in voxels if c == k]
            if members:
                self.thresholds[k] = 0.99 * self.thresholds[k] + 0.01 * sum(members) / len(members)
        weights = [self.right[cell] / self.total[cell] for cell in self.cells(voxels)]
        return sum(w * -math.log(v[0][v[2]]) for w, v in zip(weights, voxels, strict=True)) / sum(weights)

    def cells(self, voxels: list[tuple[list[float], int, int, float, int]]) -> list[tuple[int, int]]:
        return [(self.region(y, c, confidence), c) for _, y, c, confidence, _ in voxels]

    def accuracies(self) -> list[float]:
        return [self.right[cell] / self.total[cell] for cell in sorted(self.total)]


@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 6),
    keep=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    extras=st.booleans(),
)
@few
def test_several_steps_equal_the_loop(seed, classes, keep, extras):
    losses = nn.ModuleList(metassl_losses(classes, "region_accuracy")).double()
    losses[1].region_weights.keep = keep
    slow = SlowLosses(classes, keep)
    for step, training in enumerate([True, True, False, True]):
        losses.train(training)
        labeled, unlabeled = (make_batch(seed + 10 * step + k, classes, extras, absent=step == 1) for k in range(2))
        found = call(losses, labeled, unlabeled)
        expected = slow.labeled(labeled, training), slow.unlabeled(unlabeled, training)
        assert [value.item() for value in found] == pytest.approx(expected, rel=1e-9)
        weights = losses[1].region_weights()
        assert weights.dtype == torch.float64
        assert weights.flatten().tolist() == pytest.approx(slow.accuracies(), rel=1e-9)
        assert losses[1].partition.threshold.values.tolist() == pytest.approx(slow.thresholds, rel=1e-9)


def test_before_anything_is_measured_the_loss_is_plain_cross_entropy():
    """A pair of networks that meets on unlabeled images alone stays here."""
    _, loss = metassl_losses(3, "region_accuracy")
    plain = MetaSSLUnlabeledLoss(3, delta=0.0)
    for seed in range(3):
        batch = make_batch(seed)
        arguments = batch.input, *batch[2:]
        torch.testing.assert_close(loss(*arguments), plain(*arguments))
    assert torch.equal(loss.region_weights(), torch.ones(4, 3))


def test_the_labeled_loss_is_that_of_the_paper_without_a_step():
    labeled, _ = metassl_losses(3, "region_accuracy")
    paper = MetaSSLLabeledLoss(3, delta=0.0)
    for seed in range(3):
        batch = make_batch(seed)
        assert torch.equal(labeled(*batch), paper(*batch))
        assert torch.equal(labeled.regions, paper.regions)
        assert torch.equal(labeled.partition.threshold.values, paper.partition.threshold.values)


def test_one_number_a_region_equals_fixed_weights():
    numbers = torch.tensor([0.9, 0.7, 0.4, 0.2])
    accuracies = RegionAccuracyWeights(3)
    accuracies.right.copy_(numbers[:, None].expand(4, 3))
    batch = make_batch(0)
    losses = MetaSSLUnlabeledLoss(3, accuracies=accuracies), MetaSSLUnlabeledLoss(3, weights=numbers.tolist())
    assert isinstance(losses[1].region_weights, FixedWeights)
    found, expected = (loss(batch.input, *batch[2:]) for loss in losses)
    torch.testing.assert_close(found, expected)


def test_measuring_reads_the_thresholds_of_the_unlabeled_images_and_moves_none():
    for threshold in ("adaptive", "flexmatch", "freematch"):
        labeled, unlabeled = metassl_losses(3, "region_accuracy", threshold=threshold)
        call((labeled, unlabeled), make_batch(0), make_batch(1))
        before = copy.deepcopy(unlabeled.state_dict())
        own = labeled.partition.threshold.values.clone()
        unlabeled.measure(*make_batch(2))
        for key, value in unlabeled.partition.state_dict().items():
            assert torch.equal(value, before[f"partition.{key}"])
        assert torch.equal(labeled.partition.threshold.values, own)
        assert not torch.equal(unlabeled.region_weights.total, before["region_weights.total"])
        assert unlabeled.partition.threshold.training


def test_thresholds_of_the_unlabeled_images_decide_the_regions_of_the_labeled_ones():
    batch = make_batch(0)
    for value, confident in ((0.0, True), (1.0, False)):
        unlabeled = MetaSSLUnlabeledLoss(3, threshold=FixedThreshold(value), accuracies=RegionAccuracyWeights(3))
        unlabeled.measure(*batch)
        moved = (unlabeled.region_weights.total != 1).any(dim=1).tolist()
        assert moved == [confident, not confident, confident, not confident]


def test_measuring_leaves_what_the_unlabeled_loss_shows_alone():
    losses = metassl_losses(3, "region_accuracy")
    call(losses, make_batch(0), make_batch(1))
    names = ("regions", "region_counts", "foreground_counts")
    before = [getattr(losses[1], name) for name in names]
    losses[1].measure(*make_batch(2))
    assert all(getattr(losses[1], name) is value for name, value in zip(names, before, strict=True))


def test_in_evaluation_mode_nothing_moves():
    _, loss = metassl_losses(3, "region_accuracy")
    loss.measure(*make_batch(0))
    before = copy.deepcopy(loss.region_weights.state_dict())
    loss.eval().measure(*make_batch(2))
    torch.testing.assert_close(dict(loss.region_weights.state_dict()), dict(before), rtol=0, atol=0)
    loss.train().measure(*make_batch(2))
    assert not torch.equal(loss.region_weights.total, before["total"])


def test_in_evaluation_mode_a_method_measures_nothing():
    method = make_method()
    step_of(method, 0)
    accuracies = [loss.region_weights for loss in method.unlabeled_losses.values()]
    before = copy.deepcopy([each.state_dict() for each in accuracies])
    method.eval()
    step_of(method, 1)
    for each, state in zip(accuracies, before, strict=True):
        torch.testing.assert_close(dict(each.state_dict()), dict(state), rtol=0, atol=0)
    method.train()
    step_of(method, 1)
    assert all(not torch.equal(each.total, state["total"]) for each, state in zip(accuracies, before, strict=True))


def test_a_cell_that_is_absent_for_long_keeps_its_accuracy():
    accuracies = RegionAccuracyWeights(2, keep=0.01)
    seen = torch.tensor([1, 1]), torch.tensor([1, 1]), torch.tensor([True, False])
    other = torch.tensor([0]), torch.tensor([0]), torch.tensor([True])
    accuracies.update(*seen)
    before = accuracies()
    for _ in range(100):
        accuracies.update(*other)
    assert torch.equal(accuracies(), before)
    assert before[Region.US, 1] == pytest.approx(1.01 / 2.01)


@pytest.mark.parametrize("options", [{"mode": "confidence"}, {"mode": "consistency"}, {"confidence": "std"}], ids=str)
def test_other_partitions_are_measured_as_they_are_weighed(options):
    labeled, unlabeled = metassl_losses(3, "region_accuracy", **options)
    for seed in range(2):
        call((labeled, unlabeled), make_batch(seed), make_batch(seed + 10))
    kept = {"confidence": [0, 1], "consistency": [0, 2]}.get(options.get("mode"), [0, 1, 2, 3])
    assert (unlabeled.region_weights.total != 1).any(dim=1).nonzero().flatten().tolist() == kept


def test_gradient_reaches_the_input_alone():
    losses = metassl_losses(3, "region_accuracy")
    batches = [
        batch._replace(input=batch.input.requires_grad_(), reference=batch.reference.requires_grad_())
        for batch in (make_batch(0), make_batch(1))
    ]
    sum(call(losses, *batches)).backward()
    for batch in batches:
        strength = batch.input.grad.abs().sum(dim=1, keepdim=True)
        assert (strength[batch.mask] > 0).all()
        assert (strength[~batch.mask] == 0).all()
        assert batch.reference.grad is None
    assert not losses[1].region_weights().requires_grad
    assert [list(loss.parameters()) for loss in losses] == [[], []]


def test_a_copy_has_accuracies_of_its_own():
    pair = metassl_losses(3, "region_accuracy")
    _, unlabeled = copy.deepcopy(pair)
    unlabeled.measure(*make_batch(0))
    assert (unlabeled.region_weights.total > 1).any()
    assert torch.equal(pair[1].region_weights.total, torch.ones(4, 3))


def make_method() -> CrossPseudoSupervision:
    networks = [nn.Conv2d(1, 3, 3, padding=1) for _ in range(2)]
    losses = metassl_losses(3, "region_accuracy")
    return CrossPseudoSupervision(networks[0], *losses, lambda step: 0.1, second_network=networks[1])


def step_of(method: CrossPseudoSupervision, seed: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 2, 1, 8, 8, generator=random)
    label = torch.randint(0, 3, (2, 1, 8, 8), generator=random)
    return method({"labeled": {"image": images[0], "label": label}, "unlabeled": {"image": images[1]}}, seed)[0]


def test_each_pair_of_a_method_measures_its_own_reference():
    method = make_method()
    step_of(method, 0)
    accuracies = []
    for name in ("network", "second_network"):
        loss = method.unlabeled_losses[name]
        assert loss.region_weights.total.sum() == pytest.approx(2 * 64 + 12, abs=0.2)  # and the first voxels, decayed
        accuracies.append(loss.region_weights())
    assert not torch.equal(*accuracies)


def test_each_state_has_one_name_in_the_checkpoint():
    parts = {"labeled": ["partition.threshold.values"]}
    parts["unlabeled"] = [*parts["labeled"], "region_weights.right", "region_weights.total"]
    expected = {
        f"{stream}_losses.{name}.{part}"
        for stream, states in parts.items()
        for name in ("network", "second_network")
        for part in states
    }
    assert {key for key in make_method().state_dict() if "losses" in key} == expected


@pytest.mark.parametrize("loss", [CrossEntropyDiceLoss(), MonitoredLoss(CrossEntropyDiceLoss(), MetaSSLLabeledLoss(3))])
def test_a_method_measures_where_its_labeled_loss_looks_at_the_reference(loss):
    method = make_method()
    method.labeled_losses["network"] = loss
    step_of(method, 0)
    moved = [(each.region_weights.total != 1).any().item() for each in method.unlabeled_losses.values()]
    assert moved == [isinstance(loss, MonitoredLoss), True]


def test_a_monitor_measures():
    monitored, alone = (metassl_losses(3, "region_accuracy")[1] for _ in range(2))
    MonitoredLoss(PseudoLabelLoss(), monitored).measure(*make_batch(0))
    alone.measure(*make_batch(0))
    torch.testing.assert_close(monitored.region_weights(), alone.region_weights(), rtol=0, atol=0)
    assert MonitoredLoss(PseudoLabelLoss(), monitored).measures
    assert not MonitoredLoss(PseudoLabelLoss(), MetaSSLUnlabeledLoss(3)).measures


def test_a_checkpoint_restores_the_accuracies():
    method, fresh = make_method(), make_method()
    for seed in range(2):
        step_of(method, seed)
    state = copy.deepcopy(method.state_dict())
    fresh.load_state_dict(state)
    torch.testing.assert_close(step_of(fresh, 2), step_of(method, 2), rtol=0, atol=0)
    torch.testing.assert_close(fresh.state_dict(), method.state_dict(), rtol=0, atol=0)
    key = "unlabeled_losses.network.region_weights.right"
    assert not torch.equal(fresh.state_dict()[key], state[key])


def test_compiled_together_equals_eager():
    torch.compiler.reset()
    plain, eager = metassl_losses(3, "region_accuracy"), metassl_losses(3, "region_accuracy")
    compiled = torch.compile(lambda *batches: call(plain, *batches), backend="aot_eager", fullgraph=True)
    for seed in range(3):
        batches = make_batch(seed), make_batch(seed + 10)
        torch.testing.assert_close(compiled(*batches), call(eager, *batches))
        torch.testing.assert_close(dict(plain[0].state_dict()), dict(eager[0].state_dict()))
    assert plain[1].partition.threshold.training


def test_deterministic_algorithms_are_enough():
    losses = metassl_losses(3, "region_accuracy")
    torch.use_deterministic_algorithms(True)
    try:
        call(losses, make_batch(0), make_batch(1))
    finally:
        torch.use_deterministic_algorithms(False)
    assert (losses[1].region_weights.total > 1).any()


@pytest.mark.parametrize(
    "options",
    [
        {"delta": 0.3},
        {"labeled": {"beta": 2.0}},
        {"unlabeled": {"phi": "linear"}},
        {"order": tuple(Region)},
        {"weights": (1, 1, 1, 1)},
    ],
    ids=str,
)
def test_what_would_do_nothing_is_refused(options):
    (name,) = next((v for v in options.values() if isinstance(v, dict)), options)
    with pytest.raises(ValueError, match=rf"measures its weights, so \['{name}'\] would do nothing"):
        metassl_losses(3, "region_accuracy", **options)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"keep=1\.5"):
        RegionAccuracyWeights(3, keep=1.5)
    with pytest.raises(ValueError, match=r"accuracies have 2 classes.*3"):
        MetaSSLUnlabeledLoss(3, accuracies=RegionAccuracyWeights(2))
    with pytest.raises(ValueError, match=r"normalization='region'.*'total'"):
        metassl_losses(3, "region_accuracy", normalization="region")
    with pytest.raises(ValueError, match="accuracies=RegionAccuracyWeights"):
        MetaSSLUnlabeledLoss(3).measure(*make_batch(0))
