# SPDX-License-Identifier: Apache-2.0
"""Voxels that nobody annotated, in every method: they are no annotation anywhere, and are learned from as unlabeled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.data import set_rnd
from torch import Tensor, nn

from metassl_monai import losses, methods
from metassl_monai.ignore import IGNORE
from metassl_monai.losses.presets import PRESETS
from metassl_monai.methods import Method
from metassl_monai.networks import UNet2D

CLASSES, SIDE = 3, 16
Batch = dict[str, dict[str, Tensor]]

TWO: dict[str, Any] = {"second_network": "unet"}
MEAN_TEACHER: tuple[Any, dict[str, Any]] = (losses.SoftmaxMSELoss, {})
SELECTIVE = {"schedule": lambda step: 0.5}
ALL: dict[str, tuple[Any, dict[str, Any]]] = {
    "Supervised": (losses.PseudoLabelLoss, {}),
    "MeanTeacher": MEAN_TEACHER,
    "FixMatch": (losses.PseudoLabelLoss, {}),
    "CrossConsistencyTraining": MEAN_TEACHER,
    "CrossPseudoSupervision": (losses.PseudoLabelLoss, TWO),
    "RDrop": (losses.KLDivergenceLoss, {}),
    "BidirectionalCopyPaste": (losses.PseudoLabelDiceLoss, {}),
    "CopyPastePretraining": (losses.PseudoLabelLoss, {}),
    "ALHVR": (losses.SharpenedMSELoss, {**TWO, "tap": "decoder.blocks.0"}),
    "DualNet": (losses.PseudoLabelLoss, {**TWO, "contrastive_ramp": lambda step: 0.3, "review": 0.5}),
    "CrossViewMutualLearning": (losses.PseudoLabelLinearDiceLoss, TWO),
    "CrossViewPretraining": (losses.PseudoLabelLinearDiceLoss, TWO),
    "UncertaintyAwareMeanTeacher": (losses.SoftmaxMSELoss, {**SELECTIVE, "limits": (1.0, 1.0)}),
    "AmbiguityConsensusMeanTeacher": (losses.SoftmaxMSELoss, {**SELECTIVE, "limits": (0.0, 0.0)}),
    "InterpolationConsistency": MEAN_TEACHER,
    "ConflictCrossView": (losses.ConflictPseudoLabelLoss, TWO),
    "EntropyMinimization": (losses.PseudoLabelLoss, {}),
    "MutualConsistency": (losses.SoftmaxMSELoss, {"temperature": 0.5}),
    "MutualCorrection": (losses.SharpenedMSELoss, TWO),
    "DiscrepancyCorrection": (losses.PseudoLabelDiceLoss, TWO),
    "DecoupledConsistency": (losses.DecoupledConsistencyLoss, {"num_classes": CLASSES, "iterations": 9}),
    "ReliableMutualLearning": (losses.ReliablePseudoLabelLoss, {"tap": "blocks.3"}),
    "UncertaintyRectifiedPyramid": (losses.UncertaintyRectifiedLoss, {}),
}
"""By class, its own unlabeled loss, and arguments with which each term has something to do."""
WITHOUT_UNLABELED = {"Supervised", "CopyPastePretraining", "CrossViewPretraining"}
LINEAR_DICE = {"CrossViewMutualLearning", "CrossViewPretraining"}


def network() -> UNet2D:
    return UNet2D(1, CLASSES, features=(4, 4, 4, 4, 4), dropout=(0.1,) * 5)


def build(name: str, kind: str, partial: bool = True) -> Method:
    """A method with its own losses, or with those of a MetaSSL preset."""
    torch.manual_seed(0)
    own, arguments = ALL[name]
    labeled = losses.CrossEntropyLinearDiceLoss() if name in LINEAR_DICE else losses.CrossEntropyDiceLoss()
    given = (labeled, own()) if kind == "own" else losses.metassl_losses(CLASSES, kind)
    arguments = {key: network() if value == "unet" else value for key, value in arguments.items()}
    method = getattr(methods, name)(network(), *given, lambda step: 0.5, **arguments).train()
    method.partial_labels = partial
    return method


@pytest.fixture(params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["own", "paper"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def full() -> Batch:
    generator = torch.Generator().manual_seed(1)
    streams = {}
    for stream, number in (("labeled", 4), ("unlabeled", 4)):
        image = torch.randn(number, 1, SIDE, SIDE, generator=generator)
        streams[stream] = {"image": image, "image_strong": image + 0.2}
    streams["labeled"]["label"] = torch.randint(0, CLASSES, (4, 1, SIDE, SIDE), generator=generator).float()
    return streams


@pytest.fixture
def partly(full: Batch) -> Batch:
    """Most of one slice, some of another, and all of a third one are not annotated."""
    label = full["labeled"]["label"].clone()
    label[0, :, 3:] = IGNORE
    label[1, :, 5:9, 2:7] = IGNORE
    label[3] = IGNORE
    return {**full, "labeled": {**full["labeled"], "label": label}}


def play(method: Method, batch: Batch, steps: int = 1) -> dict[str, Tensor]:
    """The terms of the last of some steps."""
    torch.manual_seed(3)
    set_rnd(method, 3)
    for step in range(steps):
        terms, _ = method(batch, step)
        method.update(step)
    return terms


def gradients(method: nn.Module, terms: dict[str, Tensor]) -> list[Tensor]:
    method.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    return [parameter.grad for parameter in method.parameters() if parameter.grad is not None]


def test_every_method_is_here() -> None:
    classes = [getattr(methods, name) for name in methods.__all__]
    found = {each.__name__ for each in classes if isinstance(each, type) and issubclass(each, Method)}
    assert found - {"Method"} == set(ALL)


def test_what_stands_in_for_missing_annotation_changes_nothing(
    name: str, kind: str, partly: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the truth is there, the classes that losses are given there have no part in any term."""
    method = build(name, kind)
    other = copy.deepcopy(method)
    terms = play(method, partly)

    def random_instead(self: Method, target: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(5)
        truth = torch.randint(0, CLASSES, target.shape, generator=generator).to(target)
        return torch.where(target == IGNORE, truth, target), target != IGNORE

    monkeypatch.setattr(Method, "annotated", random_instead)
    others = play(other, partly)
    assert terms.keys() == others.keys()
    for term, value in terms.items():
        assert value.equal(others[term]), term
    for one, two in zip(gradients(method, terms), gradients(other, others), strict=True):
        assert one.equal(two)


@pytest.mark.parametrize("name", ["MutualCorrection", "DualNet"])
def test_the_better_network_is_the_better_one_where_somebody_annotated(
    name: str, partly: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for what is missing is the very prediction of one network, then of the other."""
    results = []
    for favorite in ("network", "second_network"):
        method = build(name, "own")
        with torch.no_grad():
            guess = copy.deepcopy(getattr(method, favorite))(partly["labeled"]["image"]).argmax(1, keepdim=True)

        def favored(self: Method, target: Tensor, guess: Tensor = guess) -> tuple[Tensor, Tensor]:
            return torch.where(target == IGNORE, guess.to(target), target), target != IGNORE

        monkeypatch.setattr(Method, "annotated", favored)
        results.append(play(method, partly))
    first, second = results
    for term, value in first.items():
        assert value.equal(second[term]), term


def labeled_gradients(method: Method, batch: Batch) -> list[tuple[str, Tensor, Any]]:
    """Gradient of each labeled term to the logits of its pair, and the pair."""
    made: list[Any] = []
    pairs = method.pairs

    def remember(batch: Batch, step: int) -> Any:
        made.append(pairs(batch, step))
        return made[-1]

    method.pairs = remember  # type: ignore[method-assign]
    terms = play(method, batch)
    found = []
    for pair in made[0].pairs:
        if pair.target is not None:
            term = terms[f"labeled/{pair.name}"]
            (gradient,) = torch.autograd.grad(term, pair.prediction, retain_graph=True)
            found.append((pair.name, gradient, pair))
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, kind) for name in ALL for kind in ("own", "paper")), *(("CrossPseudoSupervision", p) for p in PRESETS)],
)
def test_labeled_losses_give_no_gradient_where_nobody_annotated(name: str, kind: str, partly: Batch) -> None:
    found = labeled_gradients(build(name, kind), partly)
    assert found
    for pair_name, gradient, pair in found:
        missing = (pair.target == IGNORE).expand_as(gradient)
        assert missing.any(), pair_name
        assert (gradient[missing] == 0).all(), pair_name
        counted = ~missing if pair.mask is None else ~missing & pair.mask
        assert (gradient[counted] != 0).any(), pair_name


def test_annotation_that_is_complete_gives_the_losses_it_gives_without(name: str, kind: str, full: Batch) -> None:
    """In the second step, too: thresholds, teachers and random numbers go the same way."""
    method, plain = build(name, kind), build(name, kind, partial=False)
    terms, expected = play(method, full, steps=2), play(plain, full, steps=2)
    for term, value in expected.items():
        torch.testing.assert_close(terms.pop(term), value, msg=term)
    assert all(value == 0 for value in terms.values()), terms
    assert all("unannotated" in term for term in terms)
    names = [key for key in method.state_dict() if "losses." in key]
    for key in names:
        torch.testing.assert_close(method.state_dict()[key], plain.state_dict()[key], msg=key)


def test_missing_annotation_is_learned_from_as_unlabeled(name: str, kind: str, partly: Batch) -> None:
    method = build(name, kind)
    terms = play(method, partly)
    unannotated = {term: value for term, value in terms.items() if "unannotated" in term}
    assert bool(unannotated) == (name not in WITHOUT_UNLABELED)
    assert {term.split("/")[1] for term in unannotated if not term.startswith("extra")} <= set(
        method.names["unlabeled"]
    )
    if unannotated:
        assert any(gradient.ne(0).any() for gradient in gradients(method, unannotated))


@pytest.mark.parametrize("preset", PRESETS)
def test_batch_without_any_annotation_gives_numbers_and_no_labeled_loss(preset: str, full: Batch) -> None:
    full["labeled"]["label"].fill_(IGNORE)
    terms = play(build("CrossPseudoSupervision", preset), full)
    assert all(value.isfinite() for value in terms.values())
    assert terms["labeled/network"] == terms["labeled/second_network"] == 0


def test_no_annotation_at_all_is_finite_in_every_method(name: str, kind: str, full: Batch) -> None:
    full["labeled"]["label"].fill_(IGNORE)
    method = build(name, kind)
    terms = play(method, full)
    assert all(value.isfinite() for value in terms.values()), terms
    assert all(gradient.isfinite().all() for gradient in gradients(method, terms))
    for term, value in terms.items():
        # the first part of a pair's name is its stream; conflict compares features, without annotation
        if term.startswith("labeled/") and "conflict" not in term:
            assert value == 0, term


@pytest.mark.parametrize("name", ["MeanTeacher", "CrossPseudoSupervision", "MutualConsistency"])
def test_missing_annotation_weighs_as_the_voxels_of_unlabeled_images(name: str, full: Batch) -> None:
    """Of one image in both streams, one half of it not annotated: that half's part in the mean over the image."""
    image = full["labeled"]["image"]
    label = full["labeled"]["label"]
    label[..., SIDE // 2 :] = IGNORE
    batch = {"labeled": {"image": image, "label": label}, "unlabeled": {"image": image}}
    method = build(name, "own").eval()
    if name == "MeanTeacher":
        method.noise = 0.0
        with torch.no_grad():
            for parameter in method.teacher.parameters():
                parameter.mul_(1.3)
    (pair, *_) = (pair for pair in method.pairs(batch, 0).pairs if pair.target is None)
    right = torch.zeros_like(label, dtype=torch.bool)
    right[..., SIDE // 2 :] = True
    expected = 0.5 * 0.5 * method.unlabeled_losses["network"](pair.prediction, pair.reference, None, right)
    torch.testing.assert_close(method(batch, 0)[0]["unannotated/network"], expected)


def test_thresholds_follow_unlabeled_images_alone(partly: Batch) -> None:
    method, plain = build("CrossPseudoSupervision", "paper"), build("CrossPseudoSupervision", "paper", partial=False)
    whole = {**partly, "labeled": {**partly["labeled"], "label": partly["labeled"]["label"].clamp_min(0)}}
    play(method, partly)
    play(plain, whole)
    for name in method.names["unlabeled"]:
        one, other = (each.unlabeled_losses[name].partition.threshold.values for each in (method, plain))
        assert one.equal(other)
        assert method.unlabeled_losses[name].training


def test_labels_are_not_looked_at_unless_they_may_be_partial(
    name: str, full: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Callable] = []
    monkeypatch.setattr(methods.base, "at_unannotated", calls.append)
    monkeypatch.setattr(methods.base, "unannotated_pairs", calls.append)
    method = build(name, "own", partial=False)
    target = full["labeled"]["label"]
    assert method.annotated(target) == (target, None)
    assert not any("unannotated" in term for term in play(method, full))
    assert not calls
