# SPDX-License-Identifier: Apache-2.0
"""What is bidirectional copy-paste's own: mixtures, two parts of each, and cleaned pseudo-labels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.data import set_rnd
from torch import Tensor, nn

from metassl_monai.losses import (
    CrossEntropyDiceLoss,
    FixedThreshold,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    MonitoredLoss,
    PseudoLabelDiceLoss,
    Region,
    metassl_losses,
)
from metassl_monai.methods import BidirectionalCopyPaste


@pytest.fixture
def make_bcp(row_of: Callable, make_method: Callable) -> Callable[..., BidirectionalCopyPaste]:
    return lambda *args, **kwargs: make_method(row_of("BidirectionalCopyPaste"), *args, **kwargs)


def by_stream_and_name(pairs: Any) -> dict[str, Any]:
    return {f"{'unlabeled' if pair.target is None else 'labeled'}/{pair.name}": pair for pair in pairs}


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "halves"),
    [(2, 2, (1, 1)), (2, 3, (2, 1)), (2, 5, (3, 2)), (4, 2, (1, 1)), (1, 4, (2, 2)), (3, 1, (1, 0))],
)
@pytest.mark.parametrize("spatial", [(8, 8), (6, 8, 4)])
def test_batches_of_any_size_split_into_halves_of_two_parts_each(
    labeled: int, unlabeled: int, halves: tuple[int, int], spatial: tuple[int, ...], make_bcp: Any, make_batch: Any
) -> None:
    method = make_bcp(dims=len(spatial))
    batch = make_batch(labeled, unlabeled, spatial)
    step = method.pairs(batch, 0)
    pairs = by_stream_and_name(step.pairs)
    expected = {"inward": halves[0], "outward": halves[1]}
    assert set(pairs) == {
        f"{stream}/{name}" for name, number in expected.items() if number > 0 for stream in ("labeled", "unlabeled")
    }
    for key, pair in pairs.items():
        stream, name = key.split("/")
        assert len(pair.prediction) == len(pair.reference) == len(pair.label) == len(pair.mask) == expected[name]
        assert pair.mask.logical_xor(pairs[f"unlabeled/{name}"].mask).all() == (stream == "labeled")
        assert pair.weight == (1.0 if stream == "labeled" else 0.5)
    assert step.prediction.shape == (labeled, 3, *spatial)
    terms, _ = method(batch, 0)
    assert all(term.isfinite() for term in terms.values())
    sum(terms.values()).backward()


def test_one_unlabeled_image_has_no_outward_terms(make_bcp: Any, make_batch: Any) -> None:
    method = make_bcp()
    before = copy.deepcopy(method.state_dict())
    terms, _ = method(make_batch(2, 1), 0)
    assert set(terms) == {"labeled/inward", "unlabeled/inward"}
    state = method.state_dict()
    for stream in ("labeled", "unlabeled"):
        key = f"{stream}_losses.{{}}.partition.threshold.values"
        assert state[key.format("inward")].ne(before[key.format("inward")]).any()
        assert state[key.format("outward")].equal(before[key.format("outward")])


@pytest.mark.parametrize(("spatial", "sides"), [((8, 8), (5, 5)), ((12, 6), (8, 4)), ((6, 8, 4), (4, 5, 3))])
def test_one_box_of_two_thirds_is_labeled_inward_and_unlabeled_outward(
    spatial: tuple[int, ...], sides: tuple[int, ...], make_bcp: Any, make_batch: Any
) -> None:
    method = make_bcp(dims=len(spatial))
    pairs = by_stream_and_name(method.pairs(make_batch(2, 4, spatial), 0).pairs)
    box = pairs["labeled/inward"].mask[0, 0]
    corners = [(int(axis.min()), int(axis.max()) + 1) for axis in box.nonzero().T]
    assert tuple(high - low for low, high in corners) == sides
    assert box[tuple(slice(low, high) for low, high in corners)].all()
    assert int(box.sum()) == torch.tensor(sides).prod()
    for i in range(2):
        assert pairs["labeled/inward"].mask[i, 0].equal(box)
        assert pairs["labeled/outward"].mask[i, 0].equal(~box)


def test_box_and_weights_are_arguments(make_bcp: Any, batch: Any) -> None:
    method = make_bcp(box_fraction=0.5, unlabeled_weight=0.2)
    pairs = by_stream_and_name(method.pairs(batch, 0).pairs)
    assert int(pairs["labeled/inward"].mask[0].sum()) == 16
    assert [pairs[f"unlabeled/{name}"].weight for name in ("inward", "outward")] == [0.2, 0.2]


def test_every_voxel_is_judged_by_the_source_of_its_image(make_bcp: Any, batch: Any, shake: Callable) -> None:
    method = make_bcp(batch_norm=False).double()  # images of another batch are equal but for rounding
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    shake(method.teacher)
    pairs = by_stream_and_name(method.pairs(batch, 0).pairs)
    labeled = method.teacher(batch["labeled"]["image"])
    unlabeled = method.teacher(batch["unlabeled"]["image"])
    for name, numbers in (("inward", (0, 1)), ("outward", (2,))):
        pair, other = pairs[f"labeled/{name}"], pairs[f"unlabeled/{name}"]
        assert other.reference is pair.reference
        assert other.label.equal(pair.label)
        for at, i in enumerate(numbers):
            inside = pair.mask[at, 0]
            assert pair.reference[at][:, inside].allclose(labeled[i % 2][:, inside], atol=1e-6)
            assert pair.reference[at][:, ~inside].allclose(unlabeled[i][:, ~inside], atol=1e-6)
            assert pair.label[at, 0][inside].equal(labeled[i % 2].argmax(0)[inside])
            assert pair.target[at, 0][inside].equal(batch["labeled"]["label"][i % 2, 0][inside].long())
            assert not pair.reference.requires_grad


class Painter(nn.Module):
    """Logits that call voxels above 0.5 foreground with probability 0.9, and the others with 0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        foreground = torch.where(x > 0.5, 0.9, 0.1)
        return torch.cat([1 - foreground, foreground], dim=1).log() * self.scale


@pytest.mark.parametrize("dims", [2, 3])
def test_removed_islands_are_background_by_label_and_suspicious_discrepant_by_region(dims: int) -> None:
    losses = (
        MetaSSLLabeledLoss(2, threshold=FixedThreshold(0.5)),
        MetaSSLUnlabeledLoss(2, threshold=FixedThreshold(0.5)),
    )
    method = BidirectionalCopyPaste(Painter(), *losses, ramp=lambda step: 1.0, box_fraction=0.5)
    spatial = (8,) * dims
    image = torch.zeros(1, 1, *spatial)
    image[(0, 0, *(slice(0, 8),) * (dims - 1), 0)] = 1.0  # a wall, whose part in the unlabeled voxels is large
    island = (0, 0, *(6,) * dims)
    image[island] = 1.0
    label = torch.zeros(1, 1, *spatial)
    set_rnd(method, 0)
    for _ in range(50):  # until the box leaves the island to the unlabeled image
        pairs = by_stream_and_name(
            method.pairs({"labeled": {"image": label, "label": label}, "unlabeled": {"image": image}}, 0).pairs
        )
        pair = pairs["unlabeled/inward"]
        if pair.mask[island]:
            break
    assert pair.mask[island]
    assert int(pair.reference[0].argmax(0)[island[2:]]) == 1
    expected = torch.where(pair.mask, image, 0).long()
    expected[island] = 0
    assert torch.where(pair.mask, pair.label, 0).equal(expected)
    loss = method.unlabeled_losses["inward"]
    loss(pair.prediction, pair.reference, pair.label, pair.mask)
    # the teacher gives background 0.1 there, and the student sees foreground
    assert int(loss.regions[island]) == Region.DS
    assert loss.region_counts.tolist() == [int(pair.mask.sum()) - 1, 0, 0, 1]
    # a student that agrees with the cleaned label leaves it suspicious
    agreeing = pair.prediction.clone()
    agreeing[(0, slice(None), *island[2:])] = torch.tensor([1.0, 0.0])
    loss(agreeing, pair.reference, pair.label, pair.mask)
    assert int(loss.regions[island]) == Region.US


def test_components_are_found_before_the_images_are_mixed() -> None:
    """A box that cuts a region in two leaves both parts."""
    method = BidirectionalCopyPaste(Painter(), *metassl_losses(2), ramp=lambda step: 1.0, box_fraction=0.5)
    image = torch.zeros(1, 1, 9, 9)
    image[..., 4, :] = 1.0
    label = torch.zeros(1, 1, 9, 9)
    set_rnd(method, 0)
    for _ in range(20):
        step = method.pairs({"labeled": {"image": label, "label": label}, "unlabeled": {"image": image}}, 0)
        pair = by_stream_and_name(step.pairs)["unlabeled/inward"]
        assert torch.where(pair.mask, pair.label, 0).equal(torch.where(pair.mask, image, 0).long())


class Counter(nn.Module):
    """Batch norm of one feature, whose statistics say over which images they were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, momentum=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.norm(x), torch.zeros_like(x)], dim=1)


def test_batch_norm_is_taken_over_each_half_of_the_mixtures(make_batch: Any) -> None:
    method = BidirectionalCopyPaste(Counter(), *metassl_losses(2), ramp=lambda step: 1.0).train()
    batch = make_batch(2, 4)
    for stream in batch.values():
        stream["image"] += 1  # a mean near 0 would be compared more closely than its numbers are known
    pairs = by_stream_and_name(method.pairs(batch, 0).pairs)
    mixed = method.paste(batch["labeled"]["image"], batch["unlabeled"]["image"], randomize=False)
    for name, half in zip(("inward", "outward"), mixed.chunk(2), strict=True):
        prediction = pairs[f"labeled/{name}"].prediction[:, :1]
        assert prediction.mean().item() == pytest.approx(0, abs=1e-6)
        torch.testing.assert_close(prediction, (half - half.mean()) / (half.var(correction=0) + 1e-5).sqrt())
    assert method.network.norm.running_mean.item() == pytest.approx(mixed[2:].mean().item())


def own_losses() -> tuple[nn.Module, nn.Module]:
    return CrossEntropyDiceLoss(), PseudoLabelDiceLoss()


def monitored_losses() -> tuple[nn.Module, nn.Module]:
    return tuple(MonitoredLoss(own, look) for own, look in zip(own_losses(), metassl_losses(3), strict=True))


def test_teacher_sees_no_labeled_image_where_the_labeled_loss_reads_no_reference(
    make_bcp: Any, make_batch: Any, images_seen: Any
) -> None:
    batch = make_batch(4, 6)
    for losses, labeled in ((own_losses(), 0), (metassl_losses(3), 2), (monitored_losses(), 2)):
        method = make_bcp(given=losses)
        seen = images_seen(method, ("teacher",))["teacher"]
        method(batch, 0)
        assert [len(images) for images in seen] == [3, 3, *[2] * labeled]
        assert torch.cat(seen[:2]).equal(batch["unlabeled"]["image"])
        assert labeled == 0 or torch.cat(seen[2:]).equal(batch["labeled"]["image"])


@pytest.mark.parametrize(("labeled", "unlabeled"), [(2, 2), (2, 5), (4, 2), (1, 1)])
def test_without_the_teachers_look_the_prediction_is_the_students_on_the_mixture_of_each_image(
    labeled: int, unlabeled: int, make_bcp: Any, make_batch: Any
) -> None:
    method = make_bcp("own")
    step = method.pairs(make_batch(labeled, unlabeled), 0)
    mixtures = torch.cat([pair.prediction for pair in step.pairs if pair.target is not None])
    assert step.prediction.equal(mixtures[torch.arange(labeled) % unlabeled])
    assert not step.prediction.requires_grad
    assert all(not pair.reference.requires_grad for pair in step.pairs)


def test_a_loss_that_looks_on_changes_nothing_with_dropout(make_network: Any, make_batch: Any, play: Callable) -> None:
    networks = [make_network(dropout=0.3) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    totals = []
    for network, losses in zip(networks, (own_losses(), monitored_losses()), strict=True):
        method = BidirectionalCopyPaste(network, *losses, ramp=lambda step: 1.0)
        play(method, make_batch(), 0)
        totals.append(sum(method(make_batch(), 1)[0].values()))  # random numbers go on from the first step
    assert totals[0].equal(totals[1])


def drawn(method: BidirectionalCopyPaste, batch: Any, times: int = 6) -> list[Tensor]:
    masks = []
    for step in range(times):
        method(batch, step)
        masks.append(method.paste.mask)
    return masks


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("copied", [False, True])
def test_boxes_follow_from_the_seed_of_set_rnd_alone(copied: bool, make_bcp: Any, batch: Any) -> None:
    method = make_bcp()
    set_rnd(method, 5)
    first = drawn(method, batch)
    assert not same(first, [first[0]] * len(first))
    torch.manual_seed(99)
    drawn(method, batch, 2)
    method = copy.deepcopy(method) if copied else method
    set_rnd(method, 5)
    assert same(drawn(method, batch), first)
    set_rnd(method, 6)
    assert not same(drawn(method, batch), first)


def test_deepcopy_reseeded_draws_what_the_original_draws_and_neither_disturbs_the_other(
    make_bcp: Any, batch: Any
) -> None:
    method = make_bcp()
    duplicate = copy.deepcopy(method)
    for each in (method, duplicate):
        set_rnd(each, 5)
    masks: tuple[list[Tensor], list[Tensor]] = ([], [])
    for step in range(6):  # in turns
        for each, seen in zip((method, duplicate), masks, strict=True):
            each(batch, step)
            seen.append(each.paste.mask)
    assert same(*masks)


def test_terms_are_not_ramped_unless_the_ramp_says_so(make_bcp: Any, batch: Any, play: Callable) -> None:
    method = make_bcp(ramp=lambda step: 1.0)
    pairs = by_stream_and_name(play_pairs(method, batch))
    loss = copy.deepcopy(method.unlabeled_losses["inward"])
    pair = pairs["unlabeled/inward"]
    expected = 0.5 * loss(pair.prediction, pair.reference, pair.label, pair.mask)
    terms, _ = play(method, batch)
    torch.testing.assert_close(terms["unlabeled/inward"], expected)


def play_pairs(method: BidirectionalCopyPaste, batch: Any) -> Any:
    set_rnd(method, 3)
    return method.pairs(batch, 0).pairs
