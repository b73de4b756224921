# SPDX-License-Identifier: Apache-2.0
"""Cross-view mutual learning and its first stage: mixtures, spliced labels, conflicting features, the mean of two."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.data import set_rnd
from plain import touched
from torch import Tensor, nn

from metassl_monai.losses import CrossEntropyLinearDiceLoss, PseudoLabelLinearDiceLoss, metassl_losses
from metassl_monai.methods import CrossViewMutualLearning, CrossViewPretraining
from metassl_monai.methods.components import largest_components
from metassl_monai.methods.half_mix import HalfMix
from metassl_monai.methods.terms import conflict
from metassl_monai.networks import MeanOfTwo, SecondDecoder, UNet2D

CLASSES = 3
NAMES = ("network", "second_network")
STREAMS = ("labeled", "unlabeled")
HALVES = tuple(f"{name}.{half}" for name in NAMES for half in ("encoder", "decoder"))
LOSSES = {
    "metassl": lambda: metassl_losses(CLASSES),
    "own": lambda: (CrossEntropyLinearDiceLoss(), PseudoLabelLinearDiceLoss()),
}


@pytest.fixture
def make_cml(make_network: Callable) -> Callable[..., Any]:
    def make(
        kind: str = "own",
        method: type[CrossViewPretraining] = CrossViewMutualLearning,
        ramp: Callable[[int], float] = lambda step: 1.0,
        batch_norm: bool = False,
        dims: int = 2,
        **arguments: Any,
    ) -> Any:
        networks = {name: make_network(batch_norm, 0.0, dims) for name in NAMES}
        labeled_loss, unlabeled_loss = LOSSES[kind]()
        return method(
            labeled_loss=labeled_loss, unlabeled_loss=unlabeled_loss, ramp=ramp, **networks, **arguments
        ).train()

    return make


def boxes(spatial: tuple[int, ...], fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The boxes of the labeled and of the unlabeled stream that a method draws after this seed."""
    mix = HalfMix(fraction).set_random_state(seed)
    masks = []
    for _ in range(2):
        mix.randomize(spatial)
        masks.append(mix.mask[0, 0])
    return masks[0], masks[1]


def mixed_slowly(outside: Tensor, inside: Tensor, box: Tensor) -> Tensor:
    """Voxel by voxel: sample ``i`` around the box, and in it sample ``i`` of the second half, counted around."""
    half = math.ceil(len(outside) / 2)
    mixed = outside[:half].clone()
    for i in range(half):
        for place in box.nonzero().tolist():
            where = (slice(None), *place)
            mixed[i][where] = inside[(half + i) % len(inside)][where]
    return mixed


def cleaned(logits: Tensor) -> Tensor:
    """The label with the largest component of each class, whose slow form is in a test of its own."""
    return largest_components(logits.argmax(1, keepdim=True), CLASSES)


def half_cross_entropy_half_linear_dice(logits: Tensor, target: Tensor) -> float:
    probabilities, dice, cross_entropy, voxels = logits.softmax(1), 0.0, 0.0, 0
    for i in range(len(logits)):
        sums = [[0.0, 0.0, 0.0] for _ in range(CLASSES)]
        for place in torch.ones_like(target[i, 0]).nonzero().tolist():
            y = int(target[i, 0][tuple(place)])
            cross_entropy -= math.log(probabilities[i, y][tuple(place)])
            voxels += 1
            for c in range(CLASSES):
                p = float(probabilities[i, c][tuple(place)])
                sums[c] = [a + b for a, b in zip(sums[c], (p * (y == c), p, float(y == c)), strict=True)]
        dice += sum(1 - (2 * hit + 1e-5) / (p + y + 1e-5) for hit, p, y in sums) / CLASSES
    return 0.5 * (cross_entropy / voxels + dice / len(logits))


def two_and_twice_the_mean_cosine(first: Tensor, second: Tensor) -> float:
    total, count = 0.0, 0
    for a, b in zip(first.movedim(1, -1).flatten(0, -2), second.movedim(1, -1).flatten(0, -2), strict=True):
        dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
        total += dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))
        count += 1
    return 2 + 2 * total / count


def own(term: str, prediction: Tensor, reference: Tensor, label: Tensor) -> float:
    return half_cross_entropy_half_linear_dice(prediction, label)


def metassl(method: Any) -> Callable[..., float]:
    """Copies of the method's losses, which have slow forms of their own, with thresholds that move beside its."""
    losses = copy.deepcopy(dict(method.named_losses()))

    def loss(term: str, prediction: Tensor, reference: Tensor, label: Tensor) -> float:
        labeled = term.startswith("labeled/")
        return float(
            losses[term](prediction, label, reference) if labeled else losses[term](prediction, reference, label)
        )

    return loss


def slow_terms(
    method: Any, batch: Any, loss: Callable[..., float], seed: int, weights: tuple[float, float], fraction: float
) -> dict[str, float]:
    """Every term from the images: mixtures, labels of the networks one by one, and the sums above."""
    image, target, unlabeled = batch["labeled"]["image"], batch["labeled"]["label"], batch["unlabeled"]["image"]
    labeled_box, box = boxes(tuple(image.shape[2:]), fraction, seed)
    labeled_mix, mix = mixed_slowly(image, image, labeled_box), mixed_slowly(unlabeled, unlabeled, box)
    annotation = mixed_slowly(target, target, labeled_box)
    networks = {name: getattr(method, name) for name in NAMES}
    logits = {name: network(unlabeled) for name, network in networks.items()}
    labels = {name: cleaned(x) for name, x in logits.items()}
    terms = {}
    for name, other in zip(NAMES, reversed(NAMES), strict=True):
        terms[f"labeled/{name}"] = loss(
            f"labeled/{name}", networks[name](labeled_mix), networks[other](labeled_mix), annotation
        )
        terms[f"unlabeled/{name}"] = weights[0] * loss(
            f"unlabeled/{name}",
            networks[name](mix),
            mixed_slowly(logits[other], logits[name], box),
            mixed_slowly(labels[other], labels[name], box),
        )
    for stream, images in (("labeled", labeled_mix), ("unlabeled", mix)):
        features = [network.encoder(images)[-1] for network in networks.values()]
        terms[f"{stream}/conflict"] = weights[1] * two_and_twice_the_mean_cosine(*features)
    return terms


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 2), (4, 3), (1, 5)])
@pytest.mark.parametrize("spatial", [(8, 8), (4, 6, 4)])
def test_every_term_of_two_steps_equals_the_slow_computation(
    kind: str, labeled: int, unlabeled: int, spatial: tuple[int, ...], make_cml: Any, make_batch: Any, play: Any
) -> None:
    method = make_cml(kind, dims=len(spatial), unlabeled_weight=0.5, conflict_weight=0.1, box_fraction=0.5).double()
    batch = make_batch(labeled, unlabeled, spatial)
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    loss = own if kind == "own" else metassl(method)
    for seed in (3, 4):
        terms, _ = play(method, batch, seed=seed)
        with torch.no_grad():
            expected = slow_terms(method, batch, loss, seed, (0.5, 0.1), 0.5)
        assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)
        with torch.no_grad():
            method.network.encoder.first.weight.add_(0.1)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("labeled", "unlabeled"), [(1, 1), (2, 3), (3, 2), (5, 4)])
@pytest.mark.parametrize("spatial", [(8, 8), (6, 8, 4)])
def test_batches_of_any_size_train_every_parameter(
    kind: str, labeled: int, unlabeled: int, spatial: tuple[int, ...], make_cml: Any, make_batch: Any
) -> None:
    for stage in (CrossViewMutualLearning, CrossViewPretraining):
        method = make_cml(kind, stage, dims=len(spatial), batch_norm=True)
        terms, prediction = method(make_batch(labeled, unlabeled, spatial), 0)
        streams = STREAMS if stage is CrossViewMutualLearning else ("labeled",)
        assert set(terms) == {f"{stream}/{name}" for stream in streams for name in (*NAMES, "conflict")}
        assert all(term.ndim == 0 and term.isfinite() for term in terms.values())
        assert prediction.shape == (labeled, CLASSES, *spatial)
        sum(terms.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_label_outside_the_box_is_the_others_and_inside_the_own(make_cml: Any, make_batch: Any) -> None:
    """Item 6 of the method's tests: the splice, by labels that tell whose they are."""
    method = make_cml(box_fraction=0.5)
    batch = make_batch(2, 4)
    for number, name in enumerate(NAMES, start=1):
        head = getattr(method, name).decoder.head
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.eye(CLASSES)[number])
    set_rnd(method, 5)
    _, box = boxes((8, 8), 0.5, 5)
    pairs = {pair.name: pair for pair in method.pairs(batch, 0).pairs if pair.target is None}
    for number, name in enumerate(NAMES, start=1):
        pair = pairs[name]
        assert len(pair.label) == 2
        for i in range(2):
            assert pair.label[i, 0][box].eq(number).all()
            assert pair.label[i, 0][~box].eq(3 - number).all()
        assert pair.reference.argmax(1, keepdim=True).equal(pair.label)
        assert not pair.reference.requires_grad
        assert pair.mask is None


def test_labels_are_spliced_from_the_right_images(make_cml: Any, make_batch: Any) -> None:
    method = make_cml(box_fraction=0.5)
    image = make_batch(2, 4)["unlabeled"]["image"]
    set_rnd(method, 5)
    _, box = boxes((8, 8), 0.5, 5)
    pairs = {pair.name: pair for pair in method.pairs(make_batch(2, 4), 0).pairs if pair.target is None}
    logits = {name: getattr(method, name)(image) for name in NAMES}
    for name, other in zip(NAMES, reversed(NAMES), strict=True):
        for i in range(2):
            reference = pairs[name].reference[i]
            torch.testing.assert_close(reference[:, box], logits[name][2 + i][:, box])
            torch.testing.assert_close(reference[:, ~box], logits[other][i][:, ~box])


def test_two_networks_share_no_storage(make_cml: Any) -> None:
    """Item 7 of the method's tests; what shares weights is refused."""
    for stage in (CrossViewMutualLearning, CrossViewPretraining):
        method = make_cml(method=stage, batch_norm=True)
        first, second = (
            {tensor.untyped_storage().data_ptr() for tensor in getattr(method, name).state_dict().values()}
            for name in NAMES
        )
        assert not first & second
        for twin in (method.network, SecondDecoder(method.network)):
            with pytest.raises(ValueError, match="share weights"):
                stage(method.network, *LOSSES["own"](), lambda step: 1.0, second_network=twin)


@pytest.mark.parametrize("which", NAMES)
def test_network_without_halves_is_refused_with_a_remedy(which: str, make_network: Any) -> None:
    networks = {name: make_network() for name in NAMES} | {which: nn.Conv2d(1, CLASSES, 1)}
    with pytest.raises(ValueError, match=r"Conv2d has no `encoder` and `decoder`.*metassl_monai\.networks"):
        CrossViewMutualLearning(
            labeled_loss=nn.Identity(), unlabeled_loss=nn.Identity(), ramp=lambda step: 1.0, **networks
        )


def test_encoders_that_end_in_other_shapes_are_refused(make_batch: Any) -> None:
    first, second = (UNet2D(1, CLASSES, features=(4, deep), dropout=(0.0, 0.0)) for deep in (8, 6))
    method = CrossViewMutualLearning(first, *LOSSES["own"](), lambda step: 1.0, second_network=second)
    with pytest.raises(ValueError, match="features of shapes"):
        method(make_batch(), 0)
    method.conflict_weight = 0.0
    assert method(make_batch(), 0)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_of_each_term_reaches_what_it_should_and_no_more(
    kind: str, dims: int, make_cml: Any, make_batch: Any
) -> None:
    """Item 4 of the method's tests: a network learns from its own terms, both encoders from the conflict."""
    encoders = {f"{name}.encoder" for name in NAMES}
    for stage in (CrossViewMutualLearning, CrossViewPretraining):
        method = make_cml(kind, stage, dims=dims)
        terms, _ = method(make_batch(2, 3, (8, 8, 4)[:dims]), 0)
        for name, term in terms.items():
            pair = name.split("/")[1]
            expected = encoders if pair == "conflict" else {f"{pair}.encoder", f"{pair}.decoder"}
            assert touched(method, term, HALVES) == expected, name


def test_gradient_of_each_term_reaches_the_images_of_its_stream(make_cml: Any, make_batch: Any) -> None:
    method, batch = make_cml(), make_batch(2, 4)
    images = {stream: batch[stream]["image"].requires_grad_() for stream in STREAMS}
    terms, _ = method(batch, 0)
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, list(images.values()), retain_graph=True, allow_unused=True)
        reached = {key for key, g in zip(images, gradients, strict=True) if g is not None and bool(g.ne(0).any())}
        assert reached == {name.split("/")[0]}


def test_in_each_conflict_one_network_holds_still() -> None:
    torch.manual_seed(0)
    first, second = (torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = conflict(first, second)
    assert value.item() == pytest.approx(two_and_twice_the_mean_cosine(first.detach(), second.detach()), rel=1e-9)
    (gradient,) = torch.autograd.grad(value, first)
    moving = 1 + nn.functional.cosine_similarity(first, second.detach(), dim=1, eps=1e-6).mean()
    torch.testing.assert_close(gradient, torch.autograd.grad(moving, first)[0])  # one direction's, not two


def test_conflict_falls_when_features_part() -> None:
    x = torch.rand(1, 4, 2, 2) + 0.1
    assert conflict(x, 3 * x).item() == pytest.approx(4)
    assert conflict(x, -x).item() == pytest.approx(0, abs=1e-6)
    other = torch.rand(1, 4, 2, 2)
    assert 2 <= conflict(x, other).item() <= 4  # features that are nowhere negative
    assert conflict(x.bfloat16(), x.bfloat16()).dtype == torch.float32
    assert conflict(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)).item() == 2


@pytest.mark.parametrize(
    ("off", "absent"),
    [
        ({"conflict_weight": 0.0}, {"labeled/conflict", "unlabeled/conflict"}),
        ({"unlabeled_weight": 0.0}, {f"unlabeled/{name}" for name in NAMES}),
        ({"conflict_weight": 0.0, "unlabeled_weight": 0.0}, {"labeled/conflict"} | {"unlabeled/conflict"}),
    ],
)
def test_ablations_leave_terms_out_and_the_others_alone(
    off: dict[str, float], absent: set[str], make_cml: Any, batch: Any, play: Any
) -> None:
    method = make_cml()
    expected, _ = play(method, batch)
    for key, value in off.items():
        setattr(method, key, value)
    terms, _ = play(method, batch)
    absent = absent | ({f"unlabeled/{name}" for name in NAMES} if "unlabeled_weight" in off else set())
    assert set(terms) == set(expected) - absent
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])


def test_weights_and_ramp_multiply_what_they_should(make_cml: Any, batch: Any, play: Any) -> None:
    method = make_cml(unlabeled_weight=1.0, conflict_weight=0.2)
    expected, _ = play(method, batch)
    method.unlabeled_weight, method.conflict_weight, method.ramp = 0.5, 0.1, lambda step: 0.5
    terms, _ = play(method, batch)
    for name, term in terms.items():
        factor = 0.5 if name.endswith("conflict") else 0.25 if name.startswith("unlabeled/") else 1.0
        torch.testing.assert_close(term, factor * expected[name])


@pytest.mark.parametrize("evaluating", [False, True])
def test_without_cutmix_each_network_learns_the_others_label_of_whole_images(
    evaluating: bool, make_cml: Any, make_batch: Any
) -> None:
    """The ablation, and what is judged in evaluation mode, where each pair keeps the order of the images."""
    method = make_cml().eval() if evaluating else make_cml(cutmix=False)
    batch = make_batch(2, 3)
    step = method.pairs(batch, 0)
    pairs = {("labeled" if pair.target is not None else "unlabeled", pair.name): pair for pair in step.pairs}
    assert pairs["labeled", "network"].target.equal(batch["labeled"]["label"])
    for name, other in zip(NAMES, reversed(NAMES), strict=True):
        prediction, logits = (getattr(method, key)(batch["unlabeled"]["image"]) for key in (name, other))
        pair = pairs["unlabeled", name]
        torch.testing.assert_close(pair.prediction, prediction)
        torch.testing.assert_close(pair.reference, logits.detach())
        assert pair.label.equal(cleaned(logits))
    torch.testing.assert_close(step.prediction, method.network(batch["labeled"]["image"]))


def test_networks_see_labeled_mixtures_unlabeled_images_and_unlabeled_mixtures_apart(
    make_cml: Any, make_batch: Any, images_seen: Callable
) -> None:
    """Nothing but these, so that batch norm is taken over them and no pass is thrown away."""
    method, batch = make_cml(), make_batch(4, 6)
    seen = images_seen(method, NAMES)
    _, prediction = method(batch, 0)
    for name in NAMES:
        assert [len(images) for images in seen[name]] == [2, 6, 3]
        assert seen[name][1].equal(batch["unlabeled"]["image"])
        for mixture, stream in ((seen[name][0], "labeled"), (seen[name][2], "unlabeled")):
            around, inside = batch[stream]["image"].chunk(2)
            assert ((mixture == around) | (mixture == inside)).all()
    logits = method.network(seen["network"][0])
    torch.testing.assert_close(prediction, logits[[0, 1, 0, 1]])


def test_without_pseudo_labels_no_image_is_seen_unmixed(make_cml: Any, make_batch: Any, images_seen: Callable) -> None:
    method = make_cml(unlabeled_weight=0.0)
    seen = images_seen(method, NAMES)
    method(make_batch(4, 6), 0)
    assert [len(images) for images in seen["network"]] == [2, 3]


@pytest.mark.parametrize("in_eval_mode", [False, True])
def test_pseudo_labels_are_made_in_the_mode_asked_for_and_without_gradient(
    in_eval_mode: bool, make_cml: Any, batch: Any
) -> None:
    method = make_cml(batch_norm=True, labels_in_eval_mode=in_eval_mode)
    for name in NAMES:
        modes: list[tuple[bool, bool]] = []
        method.get_submodule(name).encoder.register_forward_hook(
            lambda module, *_, modes=modes: modes.append((module.training, torch.is_grad_enabled()))
        )
        method(batch, 0)
        assert modes == [(True, True), (not in_eval_mode, False), (True, True)]
        assert method.get_submodule(name).training


def test_pretraining_tells_of_each_image_what_is_seen_in_its_mixture(make_cml: Any, make_batch: Any) -> None:
    method = make_cml(method=CrossViewPretraining, box_fraction=0.5)
    for number, mixtures in ((1, [0]), (2, [0, 0]), (3, [0, 1, 0]), (4, [0, 1, 0, 1])):
        batch = make_batch(number)
        del batch["unlabeled"]
        set_rnd(method, 2)
        image, label = batch["labeled"]["image"], batch["labeled"]["label"]
        step = method.pairs(batch, 0)
        box, _ = boxes((8, 8), 0.5, 2)
        expected = method.network(mixed_slowly(image, image, box))
        torch.testing.assert_close(step.prediction, expected[mixtures])
        first, second = step.pairs
        torch.testing.assert_close(first.prediction, expected)
        assert (first.reference is second.prediction, second.reference is first.prediction) == (True, True)
        assert first.target.equal(mixed_slowly(label, label, box))


def test_weights_go_on_into_the_second_stage(make_cml: Any, batch: Any) -> None:
    first, second = make_cml(method=CrossViewPretraining), make_cml()
    second.inference_network.load_state_dict(first.inference_network.state_dict())
    for name in NAMES:
        image = batch["labeled"]["image"]
        assert getattr(second, name)(image).equal(getattr(first, name)(image))


def test_exported_is_the_mean_of_both_and_held_once(make_cml: Any, batch: Any) -> None:
    method = make_cml(batch_norm=True)
    mean = method.inference_network
    assert isinstance(mean, MeanOfTwo)
    assert (mean.first, mean.second) == (method.network, method.second_network)
    assert {key.split(".")[0] for key in method.state_dict()} == set(NAMES)
    assert len(list(method.parameters())) == len(list(mean.parameters()))
    image = batch["labeled"]["image"]
    method.eval()
    assert not mean.first.training
    expected = (method.network(image).softmax(1) + method.second_network(image).softmax(1)) / 2
    torch.testing.assert_close(mean(image).softmax(1), expected)


def test_deepcopy_exports_its_own_networks_and_moves_alone(make_cml: Any, batch: Any) -> None:
    method = make_cml("metassl")
    method(batch, 0)
    duplicate = copy.deepcopy(method)
    mean = duplicate.inference_network
    assert (mean.first, mean.second) == (duplicate.network, duplicate.second_network)
    before = copy.deepcopy(method.state_dict())
    optimizer = torch.optim.SGD(duplicate.parameters(), lr=0.1)
    sum(duplicate(batch, 1)[0].values()).backward()
    optimizer.step()
    assert all(value.equal(before[key]) for key, value in method.state_dict().items())
    duplicate.double()
    assert {p.dtype for p in mean.parameters()} == {torch.float64}


@pytest.mark.parametrize("stage", [CrossViewMutualLearning, CrossViewPretraining])
def test_each_name_and_stream_has_thresholds_of_its_own(stage: Any, make_cml: Any, batch: Any) -> None:
    method = make_cml("metassl", stage)

    def thresholds() -> dict[str, Tensor]:
        return {key: value.clone() for key, value in method.state_dict().items() if "threshold.values" in key}

    before = thresholds()
    streams = [stream for stream in STREAMS if stage.names[stream]]
    assert set(before) == {f"{s}_losses.{name}.partition.threshold.values" for s in streams for name in NAMES}
    method.eval()(batch, 0)
    assert all(value.equal(before[key]) for key, value in thresholds().items())
    method.train()(batch, 0)
    assert all(value.ne(before[key]).any() for key, value in thresholds().items())


def test_boxes_follow_from_the_seed_and_differ_between_streams(make_cml: Any, batch: Any, play: Any) -> None:
    method = make_cml(box_fraction=0.3)
    one, same, other = (play(method, batch, seed=seed)[0] for seed in (3, 3, 4))
    assert all(term.equal(same[name]) for name, term in one.items())
    assert any(not term.equal(other[name]) for name, term in one.items())
    drawn = [boxes((8, 8), 0.3, seed) for seed in range(5)]
    assert any(not labeled.equal(unlabeled) for labeled, unlabeled in drawn)


@pytest.mark.parametrize(
    ("spatial", "fraction", "sides"),
    [((112, 112, 80), 2 / 3, (74, 74, 53)), ((96, 96, 96), 2 / 3, (64, 64, 64)), ((256, 256), 0.5, (128, 128))],
)
def test_boxes_have_the_published_sizes_and_go_everywhere(
    spatial: tuple[int, ...], fraction: float, sides: tuple[int, ...]
) -> None:
    mix = HalfMix(fraction).set_random_state(0)
    corners = []
    for _ in range(20):
        mix.randomize(spatial)
        places = mix.mask[0, 0].nonzero()
        low, high = places.min(0).values, places.max(0).values + 1
        assert tuple((high - low).tolist()) == sides
        assert len(places) == math.prod(sides)
        corners.append(low)
    spread = torch.stack(corners)
    assert (spread.max(0).values - spread.min(0).values > torch.tensor(spatial) // 10).all()


def test_a_box_reaches_every_border_and_is_never_empty() -> None:
    mix = HalfMix(0.1).set_random_state(0)
    seen = torch.zeros(5, dtype=torch.bool)
    for _ in range(100):
        mix.randomize((5,))
        assert mix.mask.sum() == 1
        seen |= mix.mask[0, 0]
    assert seen.all()


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.1])
def test_box_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="box_fraction"):
        HalfMix(fraction)
