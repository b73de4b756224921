# SPDX-License-Identifier: Apache-2.0
"""The wider family that the papers compare with: who learns from which term, and each total against plain loops.

MC-Net is a row of ``conftest.py``; what no row can say is here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from plain import softmax, top, touched, voxels
from torch import Tensor, nn

from metassl_monai.losses import (
    ConflictPseudoLabelLoss,
    CrossEntropyDiceLoss,
    PseudoLabelLoss,
    SoftmaxMSELoss,
    UncertaintyRectifiedLoss,
    metassl_losses,
)
from metassl_monai.methods import (
    AmbiguityConsensusMeanTeacher,
    ConflictCrossView,
    EntropyMinimization,
    InterpolationConsistency,
    Method,
    MutualConsistency,
    UncertaintyAwareMeanTeacher,
    UncertaintyRectifiedPyramid,
    urpc,
)
from metassl_monai.methods.selective import SelectiveMeanTeacher
from metassl_monai.networks import UNet2D, VNet3D

Batch = dict[str, dict[str, Tensor]]
Voxel = list[float]
STREAMS = ("labeled", "unlabeled")
SURE = 0.4


def half_the_step(step: int) -> float:
    return step / 2


@dataclass(frozen=True)
class Case:
    """What ``make_method`` reads of a row, and what a method is expected to do."""

    method: type[Method]
    own_unlabeled: Callable[[], nn.Module]
    learns: dict[str, set[str]]
    """By loss term, the submodules that it trains, and no others."""
    reads: dict[str, set[str]]
    """By loss term, the streams that its gradient reaches."""
    arguments: dict[str, Any] = field(default_factory=dict)
    further_networks: tuple[str, ...] = ()
    teacher: bool = False
    dropout: float = 0.0


def both_streams(name: str, *parts: str) -> dict[str, set[str]]:
    return {f"{stream}/{name}": set(parts) for stream in STREAMS}


def own_stream(*names: str) -> dict[str, set[str]]:
    return {f"{stream}/{name}": {stream} for stream in STREAMS for name in names}


FIRST, SECOND = ("network.encoder", "network.decoder"), ("second_network.encoder", "second_network.decoder")
STUDENT = {"learns": both_streams("network", *FIRST), "reads": own_stream("network"), "teacher": True}
CASES = [
    Case(
        UncertaintyAwareMeanTeacher,
        SoftmaxMSELoss,
        arguments={"schedule": half_the_step, "limits": (0.85, 0.95)},
        **STUDENT,
    ),
    Case(
        AmbiguityConsensusMeanTeacher,
        SoftmaxMSELoss,
        arguments={"schedule": half_the_step, "limits": (0.75, 0.85)},
        **STUDENT,
    ),
    Case(InterpolationConsistency, SoftmaxMSELoss, **STUDENT),
    Case(
        ConflictCrossView,
        lambda: ConflictPseudoLabelLoss(SURE, weight=3.0),
        learns={
            **both_streams("network", *FIRST),
            **both_streams("second_network", *SECOND),
            "extra/conflict": {"network.encoder", "second_network.encoder"},
        },
        reads={**own_stream("network", "second_network"), "extra/conflict": set(STREAMS)},
        arguments={"conflict_weight": 0.7},
        further_networks=("second_network",),
    ),
    Case(
        EntropyMinimization,
        PseudoLabelLoss,
        learns={"labeled/network": set(FIRST), "extra/entropy": set(FIRST)},
        reads={"labeled/network": {"labeled"}, "extra/entropy": {"unlabeled"}},
    ),
]


def name_of(case: Case) -> str:
    return case.method.__name__


BY_NAME = {name_of(case): case for case in CASES}


@pytest.fixture(params=CASES, ids=name_of)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=[case for case in CASES if case.teacher], ids=name_of)
def teacher_case(request: pytest.FixtureRequest) -> Case:
    return request.param


def sharpen(method: nn.Module) -> None:
    """Make logits large enough that confidences and entropies fall on both sides of the limits."""
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name.endswith("head.weight"):
                parameter.mul_(2.5)


def parts_of(case: Case) -> set[str]:
    parts = {part for parts in case.learns.values() for part in parts}
    return parts | {"teacher"} if case.teacher else parts


@pytest.mark.parametrize("spatial", [(8, 8), (8, 8, 4)], ids=["2D", "3D"])
def test_each_term_trains_what_it_should_and_nothing_else(
    case: Case, losses: str, spatial: tuple[int, ...], make_method: Callable, make_batch: Callable
) -> None:
    method = make_method(case, losses, dims=len(spatial))
    sharpen(method)
    terms, prediction = method(make_batch(spatial=spatial), 1)
    assert {name: touched(method, term, parts_of(case)) for name, term in terms.items()} == case.learns
    assert prediction.shape == (2, 3, *spatial)
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())


def test_each_term_reads_the_images_it_should_and_no_others(
    case: Case, losses: str, make_method: Callable, batch: Batch
) -> None:
    """Without batch norm, which mixes the images of a batch."""
    method = make_method(case, losses, batch_norm=False)
    sharpen(method)
    images = {stream: batch[stream]["image"].requires_grad_() for stream in STREAMS}
    for name, term in method(batch, 1)[0].items():
        gradients = torch.autograd.grad(term, list(images.values()), retain_graph=True, allow_unused=True)
        assert {s for s, g in zip(images, gradients, strict=True) if g is not None and g.ne(0).any()} == case.reads[
            name
        ]


def test_ramp_multiplies_all_that_learns_from_unlabeled_images(
    case: Case, losses: str, make_method: Callable, batch: Batch, shake: Callable, play: Callable
) -> None:
    method = make_method(case, losses, ramp=lambda step: 1.0)
    sharpen(method)
    if case.teacher:
        shake(method.teacher, 0.2)
    ramped = copy.deepcopy(method)
    ramped.ramp = lambda step: 0.25
    (full, _), (part, _) = play(method, batch, 1), play(ramped, batch, 1)
    for name, term in full.items():
        assert term > 0
        factor = 1.0 if name.startswith("labeled/") else 0.25
        torch.testing.assert_close(part[name], factor * term, rtol=1e-6, atol=0)


def test_state_holds_what_children_and_losses_hold_and_copies_are_independent(
    case: Case, losses: str, make_method: Callable, batch: Batch, shake: Callable, play: Callable
) -> None:
    method = make_method(case, losses)
    parts = {name.split(".")[0] for name in parts_of(case)} | {"labeled_losses", "unlabeled_losses"}
    assert {key.split(".")[0] for key in method.state_dict()} <= parts
    sharpen(method)
    duplicate = copy.deepcopy(method)
    shake(duplicate)
    expected, _ = play(copy.deepcopy(method), batch)
    changed, _ = play(duplicate, batch)
    terms, _ = play(method, batch)
    assert all(term.equal(expected[name]) and not term.equal(changed[name]) for name, term in terms.items())


def test_teacher_moves_by_its_average_only(teacher_case: Case, make_method: Callable, batch: Batch) -> None:
    method = make_method(teacher_case)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    before = [p.clone() for p in method.teacher.parameters()]
    passes_with_gradient = []
    method.teacher.register_forward_hook(lambda *_: passes_with_gradient.append(torch.is_grad_enabled()))
    for step in range(2):
        sum(method(batch, step)[0].values()).backward()
        optimizer.step()
        assert all(new.equal(old) for new, old in zip(method.teacher.parameters(), before, strict=True))
    assert not any(passes_with_gradient)
    method.update(1)
    for new, old, student in zip(method.teacher.parameters(), before, method.network.parameters(), strict=True):
        torch.testing.assert_close(new, 0.5 * old + 0.5 * student)


# The slow side: lists of voxels, formulas as the papers write them.


def entropy(p: Voxel) -> float:
    return -sum(value * math.log(value) for value in p) / math.log(len(p))


def mean_square(predictions: list[Voxel], references: list[Voxel]) -> float:
    total = 0.0
    for p, q in zip(predictions, references, strict=True):
        total += sum((a - b) ** 2 for a, b in zip(softmax(p), softmax(q), strict=True)) / len(p)
    return total / len(predictions)


def conflict_cross_entropy(predictions: list[Voxel], references: list[Voxel]) -> float:
    total, conflicts = 0.0, 0
    for p, q in zip(predictions, references, strict=True):
        conflict = top(p) != top(q) and max(softmax(q)) > SURE
        conflicts += conflict
        total += (3.0 if conflict else 1.0) * -math.log(softmax(p)[top(q)])
    assert 0 < conflicts < len(predictions)
    return total / len(predictions)


def supervised(predictions: list[Voxel], target: list[int]) -> float:
    cross_entropy = sum(-math.log(softmax(p)[y]) for p, y in zip(predictions, target, strict=True)) / len(target)
    dice = 0.0
    for c in range(3):
        upper = 1e-5 + sum(2 * softmax(p)[c] for p, y in zip(predictions, target, strict=True) if y == c)
        lower = 1e-5 + sum((y == c) + softmax(p)[c] ** 2 for p, y in zip(predictions, target, strict=True))
        dice += upper / lower / 3
    return 0.5 * (cross_entropy + 1 - dice)


class MetaSSL:
    """The two losses of the paper for one pair name."""

    def __init__(self) -> None:
        self.thresholds = {"labeled": [0.5] * 3, "unlabeled": [0.5] * 3}

    def weights(self, stream: str, references: list[Voxel], others: list[int]) -> list[float]:
        thresholds = self.thresholds[stream]
        for c in range(3):
            confidences = [max(softmax(q)) for q in references if top(q) == c]
            if confidences:
                thresholds[c] = 0.99 * thresholds[c] + 0.01 * sum(confidences) / len(confidences)
        ranks = ("UC", "US", "DC", "DS") if stream == "unlabeled" else ("UC", "US", "DS", "DC")
        delta = 0.6 if stream == "unlabeled" else 0.3
        regions = [
            ("U" if top(q) == other else "D") + ("C" if max(softmax(q)) > thresholds[top(q)] else "S")
            for q, other in zip(references, others, strict=True)
        ]
        return [math.exp(-((ranks.index(region) * delta) ** 3)) for region in regions]

    def labeled(self, predictions: list[Voxel], references: list[Voxel], target: list[int]) -> float:
        weights = self.weights("labeled", references, target)
        rows = [(w, softmax(p), y) for w, p, y in zip(weights, predictions, target, strict=True)]
        cross_entropy = sum(w * -math.log(p[y]) for w, p, y in rows) / sum(weights)
        dice = 0.0
        for c in range(3):
            upper = 1e-5 + sum(2 * w * p[c] for w, p, y in rows if y == c)
            dice += upper / (1e-5 + sum(w * ((y == c) + p[c]) for w, p, y in rows)) / 3
        return cross_entropy + 1 - dice

    def unlabeled(self, predictions: list[Voxel], references: list[Voxel]) -> float:
        weights = self.weights("unlabeled", references, [top(p) for p in predictions])
        pairs = zip(weights, predictions, references, strict=True)
        return sum(w * -math.log(softmax(p)[top(q)]) for w, p, q in pairs) / sum(weights)


class Slow:
    """The terms of a run, method by method; each returns the unweighted terms of one step."""

    def __init__(self, method: Any, batch: Batch, kind: str) -> None:
        self.method, self.kind = method, kind
        self.images = {stream: batch[stream]["image"] for stream in STREAMS}
        self.target = [int(value) for value in batch["labeled"]["label"].flatten()]
        self.metassl: dict[str, MetaSSL] = {}

    def pair(self, name: str, predictions: list[list[Voxel]], references: list[list[Voxel]]) -> tuple[float, float]:
        """The labeled and the unlabeled term; each argument holds the voxels of both streams."""
        if self.kind == "metassl":
            loss = self.metassl.setdefault(name, MetaSSL())
            return loss.labeled(predictions[0], references[0], self.target), loss.unlabeled(
                predictions[1], references[1]
            )
        own = conflict_cross_entropy if isinstance(self.method, ConflictCrossView) else mean_square
        return supervised(predictions[0], self.target), own(predictions[1], references[1])

    def see(self, network: nn.Module, change: Callable[[Tensor], Tensor] = lambda x: x) -> list[list[Voxel]]:
        return [voxels(network(change(self.images[stream]))) for stream in STREAMS]

    def teacher_sees_noise(self) -> list[list[Voxel]]:
        """Both streams in one draw, as the step drew them; the unlabeled one alone where the other's is not read."""
        if self.kind == "own":
            return [[], voxels(self.method.teacher(self.noisy(self.images["unlabeled"])))]
        noisy = self.noisy(torch.cat(list(self.images.values())))
        return [voxels(self.method.teacher(part)) for part in noisy.split([len(x) for x in self.images.values()])]

    @staticmethod
    def noisy(images: Tensor) -> Tensor:
        return images + (0.1 * torch.randn_like(images)).clamp(-0.2, 0.2)

    def selected(self, student: Any, teacher: Any, keep: list[bool]) -> tuple[float, float]:
        assert 0 < sum(keep) < len(keep)
        student, teacher = (
            [labeled, [voxel for voxel, kept in zip(unlabeled, keep, strict=True) if kept]]
            for labeled, unlabeled in (student, teacher)
        )
        return self.pair("network", student, teacher)

    def uncertainty_aware_mean_teacher(self, step: int) -> tuple[float, float]:
        teacher = self.teacher_sees_noise()
        passes = [voxels(self.method.teacher(self.noisy(self.images["unlabeled"]))) for _ in range(8)]
        keep = []
        for logits in zip(*passes, strict=True):
            mean = [sum(column) / 8 for column in zip(*map(softmax, logits), strict=True)]
            keep.append(entropy(mean) < 0.85 + 0.1 * step / 2)
        return self.selected(self.see(self.method.network), teacher, keep)

    def ambiguity_consensus_mean_teacher(self, step: int) -> tuple[float, float]:
        student, teacher = self.see(self.method.network), self.teacher_sees_noise()
        keep = [entropy(softmax(voxel)) >= 0.75 + 0.1 * step / 2 for voxel in student[1]]
        return self.selected(student, teacher, keep)

    def interpolation_consistency(self, step: int) -> tuple[float, float]:
        unlabeled = self.images["unlabeled"]
        teacher = self.see(self.method.teacher)
        size = len(teacher[1]) // len(unlabeled)
        shares = torch.distributions.Beta(0.2, 0.2).sample((len(unlabeled), 1, 1, 1)).flatten().tolist()
        student, mixed = [voxels(self.method.network(self.images["labeled"])), []], []
        for i, drawn in enumerate(shares):
            share = max(drawn, 1 - drawn)
            image = share * unlabeled[i] + (1 - share) * unlabeled[i - 1]
            student[1] += voxels(self.method.network(image[None]))
            for voxel in range(size):
                own, other = (softmax(teacher[1][j % len(unlabeled) * size + voxel]) for j in (i, i - 1))
                mixed.append([math.log(share * a + (1 - share) * b) for a, b in zip(own, other, strict=True)])
        return self.pair("network", student, [teacher[0], mixed])

    def conflict_cross_view(self, step: int) -> tuple[float, float]:
        networks = self.method.network, self.method.second_network
        first, second = map(self.see, networks)
        terms = self.pair("network", first, second), self.pair("second_network", second, first)
        labeled, unlabeled = (sum(column) for column in zip(*terms, strict=True))
        deepest = [torch.cat([network.encoder(x)[-1] for x in self.images.values()]) for network in networks]
        cosines = []
        for u, v in zip(*map(voxels, deepest), strict=True):
            product = sum(a * b for a, b in zip(u, v, strict=True))
            cosines.append(product / math.hypot(*u) / math.hypot(*v))
        return labeled, unlabeled + 0.7 * (1 + sum(cosines) / len(cosines))

    def entropy_minimization(self, step: int) -> tuple[float, float]:
        labeled, unlabeled = self.see(self.method.network)
        doubt = sum(entropy(softmax(voxel)) for voxel in unlabeled) / len(unlabeled)
        loss = self.metassl.setdefault("network", MetaSSL())
        if self.kind == "metassl":
            return loss.labeled(labeled, labeled, self.target), doubt
        return supervised(labeled, self.target), doubt


def slow_terms(slow: Slow, step: int) -> tuple[float, float]:
    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in type(slow.method).__name__)
    return getattr(slow, name.lstrip("_"))(step)


def test_total_of_three_steps_equals_the_slow_computation(
    case: Case, losses: str, make_method: Callable, batch: Batch, shake: Callable, play: Callable
) -> None:
    method = make_method(case, losses, ramp=lambda step: 0.3 + step, batch_norm=False).double()
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    sharpen(method)
    if case.teacher:
        shake(method.teacher, 0.2)  # a teacher of its own, else it equals its student
    slow = Slow(method, batch, losses)
    for step in range(3):
        terms, _ = play(method, batch, step, seed=step)
        torch.manual_seed(step)
        with torch.no_grad():
            labeled, unlabeled = slow_terms(slow, step)
        expected = labeled + (0.3 + step) * unlabeled
        assert sum(term.item() for term in terms.values()) == pytest.approx(expected, rel=1e-6)
        with torch.no_grad():
            method.network.encoder.first.weight.add_(0.1)


# What is one method's own.


@pytest.mark.parametrize("name", ["UncertaintyAwareMeanTeacher", "AmbiguityConsensusMeanTeacher"])
def test_selection_masks_the_unlabeled_pair_alone_and_follows_its_schedule(
    name: str, make_method: Callable, batch: Batch, play: Callable
) -> None:
    method = make_method(BY_NAME[name])
    sharpen(method)
    counts = []
    method.limits = (0.7, 1.0)
    for step in (0, 1, 2):
        torch.manual_seed(0)
        labeled, unlabeled = method.pairs(batch, step).pairs
        assert labeled.mask is None
        assert unlabeled.mask.shape == (3, 1, 8, 8)
        counts.append(int(unlabeled.mask.sum()))
    assert counts == sorted(counts, reverse=name.startswith("Ambiguity"))
    assert len(set(counts)) == 3


def test_published_limits() -> None:
    limits = {name: BY_NAME[name].method.published_limits for name in list(BY_NAME)[:2]}
    assert limits == {
        "UncertaintyAwareMeanTeacher": (0.75, 1.0),
        "AmbiguityConsensusMeanTeacher": (0.75, 0.95),
    }


def test_uncertainty_is_that_of_noisy_passes_of_the_unlabeled_images(
    make_method: Callable, batch: Batch, images_seen: Callable
) -> None:
    method = make_method(BY_NAME["UncertaintyAwareMeanTeacher"], passes=4)
    seen = images_seen(method, ("teacher",))["teacher"]
    method(batch, 0)
    assert [len(images) for images in seen] == [5, 3, 3, 3, 3]
    differences = [images - batch["unlabeled"]["image"] for images in seen[1:]]
    assert all(0 < difference.abs().max() <= 0.2 + 1e-6 for difference in differences)
    assert not differences[0].equal(differences[1])


def test_batch_without_any_selected_voxel_gives_zero_and_no_nan(
    losses: str, make_method: Callable, batch: Batch
) -> None:
    method = make_method(BY_NAME["AmbiguityConsensusMeanTeacher"], losses)
    method.limits = (1.0, 1.0)
    terms, _ = method(batch, 0)
    sum(terms.values()).backward()
    assert terms["unlabeled/network"] == 0
    assert all(p.grad.isfinite().all() for p in method.network.parameters())


def test_selection_must_be_written_by_a_subclass(make_network: Callable) -> None:
    method = SelectiveMeanTeacher(
        make_network(), nn.Identity(), nn.Identity(), half_the_step, schedule=half_the_step, limits=(0, 1)
    )
    with pytest.raises(NotImplementedError, match="SelectiveMeanTeacher must write selected"):
        method.selected(torch.zeros(1), torch.zeros(1), 0.5)


def test_student_sees_mixtures_in_which_each_image_has_the_larger_share(
    make_method: Callable, make_batch: Callable, images_seen: Callable
) -> None:
    method = make_method(BY_NAME["InterpolationConsistency"])
    batch = make_batch(unlabeled=64)
    batch["unlabeled"]["image"] = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 8, 8)
    seen = images_seen(method, ("network", "teacher"))
    method(batch, 0)
    mixed = seen["network"][0][2:, 0, 0, 0]
    share = 1 - (torch.arange(64.0) - mixed)[1:]  # the neighbor shows one less
    assert (share >= 0.5 - 1e-5).all()
    assert (share < 0.99).any()
    assert (share > 0.99).any()
    assert seen["network"][0][:2].equal(batch["labeled"]["image"])
    assert seen["teacher"][0].equal(torch.cat([batch[stream]["image"] for stream in STREAMS]))


def test_one_image_is_mixed_with_itself(make_method: Callable, make_batch: Callable, images_seen: Callable) -> None:
    method = make_method(BY_NAME["InterpolationConsistency"])
    batch = make_batch(unlabeled=1)
    seen = images_seen(method, ("network",))["network"]
    terms, _ = method(batch, 0)
    torch.testing.assert_close(seen[0][2:], batch["unlabeled"]["image"])
    assert terms["unlabeled/network"].isfinite()


def test_second_decoder_is_a_fresh_copy_or_the_given_one() -> None:
    network, given = UNet2D(1, 3, features=(4, 8), dropout=(0.0, 0.0)), nn.Identity()
    shared = network, *metassl_losses(3), half_the_step
    second = MutualConsistency(*shared).second_decoder
    assert not second.head.weight.equal(network.decoder.head.weight)
    assert second.head.weight.shape == network.decoder.head.weight.shape
    assert MutualConsistency(*shared, second_decoder=given).second_decoder is given


def test_conflict_may_weigh_nothing(make_method: Callable, batch: Batch) -> None:
    case = copy.deepcopy(BY_NAME["ConflictCrossView"])
    case.arguments["conflict_weight"] = 0.0
    assert make_method(case)(batch, 0)[0]["extra/conflict"] == 0


PYRAMID = ("scale_1", "scale_2", "scale_4", "scale_8")


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def pyramid(request: pytest.FixtureRequest, losses: str) -> tuple[UncertaintyRectifiedPyramid, Batch]:
    torch.manual_seed(0)
    if request.param == 2:
        network, shape = UNet2D(1, 3, features=(2, 3, 4, 5, 6), dropout=(0.0,) * 5), (2, 1, 16, 16)
    else:
        network, shape = VNet3D(1, 3, features=(2, 3, 4, 5, 6), dropout=0.0), (1, 1, 16, 16, 16)
    own = CrossEntropyDiceLoss(), UncertaintyRectifiedLoss()
    chosen = metassl_losses(3) if losses == "metassl" else own
    method = UncertaintyRectifiedPyramid(network, *chosen, ramp=lambda step: 0.3)
    labeled = {"image": torch.randn(shape), "label": torch.randint(0, 3, shape).float()}
    return method, {"labeled": labeled, "unlabeled": {"image": torch.randn(shape)}}


def test_each_scale_trains_its_head_and_what_is_below(pyramid: Any) -> None:
    method, batch = pyramid
    parts = {"network.encoder", "network.decoder.head", *(f"heads.{name}" for name in PYRAMID[1:])}
    parts |= {f"network.decoder.blocks.{i}" for i in range(4)}
    terms, prediction = method(batch, 0)
    assert set(terms) == {f"{stream}/{name}" for stream in STREAMS for name in PYRAMID}
    for name, term in terms.items():
        scale = PYRAMID.index(name.split("/")[1])
        head = f"heads.{PYRAMID[scale]}" if scale else "network.decoder.head"
        below = {f"network.decoder.blocks.{i}" for i in range(4 - scale)}
        assert touched(method, term, parts) == {"network.encoder", head} | below, name
    assert prediction[:, :1].shape == batch["labeled"]["image"].shape


def slow_scales(method: Any, images: Tensor) -> dict[str, list[Voxel]]:
    """Heads on the outputs of the decoder's blocks, each of their voxels repeated."""
    outputs = []
    hooks = [
        block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in method.network.decoder.blocks
    ]
    result = {"scale_1": voxels(method.network(images))}
    for hook in hooks:
        hook.remove()
    if isinstance(method.network, VNet3D):
        assert method.network.decoder.dropout.p == 0  # it comes after the last block
    for scale, name in enumerate(PYRAMID[1:], start=1):
        logits = method.heads[name](FIXED[name](outputs[-1 - scale]))
        for axis in range(2, logits.ndim):
            logits = logits.repeat_interleave(2**scale, dim=axis)
        result[name] = voxels(logits)
    return result


FIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "scale_2": lambda x: 1.2 * x,
    "scale_4": lambda x: x.clamp(max=0.5),
    "scale_8": lambda x: x * (torch.arange(x.shape[-1]) % 2),
}


def rectified(predictions: list[Voxel], references: list[Voxel]) -> float:
    squares = weights = divergences = 0.0
    for p, q in ((softmax(p), softmax(q)) for p, q in zip(predictions, references, strict=True)):
        divergence = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
        divergences += divergence
        weights += math.exp(-divergence)
        squares += math.exp(-divergence) * sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) / len(p)
    return squares / weights + divergences / len(predictions)


def test_total_of_three_steps_of_the_pyramid_equals_the_slow_computation(
    pyramid: Any, losses: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, perturb in FIXED.items():
        monkeypatch.setitem(urpc.PERTURBATIONS, name, perturb)
    method, batch = pyramid
    method = method.double()
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    target = [int(value) for value in batch["labeled"]["label"].flatten()]
    states = {name: MetaSSL() for name in PYRAMID}
    for step in range(3):
        terms, _ = method(batch, step)
        with torch.no_grad():
            scales = slow_scales(method, torch.cat([batch[stream]["image"] for stream in STREAMS]))
        expected, half = 0.0, len(target)
        columns = list(zip(*[[softmax(voxel) for voxel in scale] for scale in scales.values()], strict=True))
        mean = [[math.log(sum(p) / 4) for p in zip(*column, strict=True)] for column in columns]
        for name, logits in scales.items():
            if losses == "metassl":
                labeled = states[name].labeled(logits[:half], mean[:half], target)
                unlabeled = states[name].unlabeled(logits[half:], mean[half:])
            else:
                labeled, unlabeled = supervised(logits[:half], target), rectified(logits[half:], mean[half:])
            expected += (labeled + 0.3 * unlabeled) / 4
        assert sum(term.item() for term in terms.values()) == pytest.approx(expected, rel=1e-6)
        with torch.no_grad():
            method.network.decoder.head.weight.mul_(1.5)


def test_features_are_perturbed_in_training_only(pyramid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = pyramid
    images = torch.cat([batch[stream]["image"] for stream in STREAMS])
    levels = {name: images.shape[-1] // int(name.removeprefix("scale_")) for name in PYRAMID[1:]}
    sides: dict[str, int] = {}
    for name in levels:
        monkeypatch.setitem(urpc.PERTURBATIONS, name, lambda x, name=name: sides.update({name: x.shape[-1]}) or 0 * x)
    scales = method.scales(images)
    assert sides == levels
    for name in levels:  # nothing but the bias of its head is left
        assert scales[name].flatten(2).std(dim=2).max() < 1e-6
    sides.clear()
    method.eval().scales(images)
    assert not sides


@pytest.mark.parametrize("network", [nn.Conv2d(1, 3, 1), UNet2D(1, 3, features=(2, 3, 4, 5), dropout=(0.0,) * 4)])
def test_network_without_four_scales_is_refused_with_the_remedy(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"{type(network).__name__} has no `decoder`.*five levels"):
        UncertaintyRectifiedPyramid(network, *metassl_losses(3), half_the_step)


def test_rectified_loss_takes_masks_and_detaches_its_reference() -> None:
    input, reference = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, :2] = 1
    loss = UncertaintyRectifiedLoss()
    part = loss(input, reference, mask=mask)
    torch.testing.assert_close(part, loss(input[:, :, :2], reference[:, :, :2]))
    part.backward()
    assert reference.grad is None
    assert input.grad[:, :, 2:].eq(0).all()
    assert loss(input, reference, mask=0 * mask) == 0


WRONG = [
    (UncertaintyAwareMeanTeacher, {"schedule": half_the_step, "passes": 0}, "passes=0"),
    (
        UncertaintyAwareMeanTeacher,
        {"schedule": half_the_step, "limits": (0.75, 1.5)},
        r"limits=\(0.75, 1.5\).*between 0 and 1",
    ),
    (AmbiguityConsensusMeanTeacher, {"schedule": half_the_step, "limits": (-0.1, 1.0)}, "limits"),
    (InterpolationConsistency, {"alpha": 0.0}, "alpha=0.0"),
    (MutualConsistency, {"temperature": 0.0}, "temperature=0.0"),
    (MutualConsistency, {"network": nn.Conv2d(1, 3, 1)}, "Conv2d has no `encoder` and `decoder`"),
]


@pytest.mark.parametrize(("method", "arguments", "message"), WRONG)
def test_wrong_arguments_are_refused_with_the_remedy(
    method: type[Method], arguments: dict[str, Any], message: str, make_network: Callable
) -> None:
    shared = {"network": make_network(), "labeled_loss": nn.Identity(), "unlabeled_loss": nn.Identity()}
    with pytest.raises(ValueError, match=message):
        method(**{**shared, "ramp": half_the_step, **arguments})


def test_one_network_is_no_two_views(make_network: Callable) -> None:
    network = make_network()
    with pytest.raises(ValueError, match="same object"):
        ConflictCrossView(network, *metassl_losses(3), half_the_step, second_network=network)


@pytest.mark.parametrize("arguments", [{"threshold": 1.1}, {"threshold": -0.1}, {"weight": -1.0}])
def test_wrong_arguments_of_the_conflict_loss_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"threshold=|weight="):
        ConflictPseudoLabelLoss(**arguments)


def test_conflict_loss_takes_labels_and_masks_and_detaches_its_reference() -> None:
    input, reference = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    label, mask = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    mask[:, :, :2] = 1
    half = ConflictPseudoLabelLoss(0.0)(input, reference, label, mask)
    part = ConflictPseudoLabelLoss(0.0)(input[:, :, :2], reference[:, :, :2], label[:, :, :2])
    torch.testing.assert_close(half, part)
    half.backward()
    assert reference.grad is None
    assert input.grad[:, :, 2:].eq(0).all()
    with pytest.raises(ValueError, match="reference has shape"):
        ConflictPseudoLabelLoss()(input, reference[:1])


def test_conflict_weight_of_one_is_the_plain_pseudo_label_loss() -> None:
    input, reference = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert ConflictPseudoLabelLoss(0.5, weight=1.0)(input, reference) == PseudoLabelLoss()(input, reference)


def test_entropy_minimization_leaves_the_unlabeled_loss_unused(make_method: Callable) -> None:
    assert not make_method(BY_NAME["EntropyMinimization"]).unlabeled_losses
