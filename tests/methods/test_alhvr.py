# SPDX-License-Identifier: Apache-2.0
"""What is ALHVR's own: regions of low confidence, a teacher by voxel, prototypes, perturbed features."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from plain import softmax, top
from torch import Tensor, nn

from metassl_monai.engines.trainer import compile_method
from metassl_monai.losses import CrossEntropyDiceLoss, SharpenedMSELoss, metassl_losses
from metassl_monai.methods import ALHVR
from metassl_monai.methods.alhvr_terms import Regions, mean_of_lowest, prototype_terms, surer
from metassl_monai.methods.perturbations import PERTURBATIONS
from metassl_monai.methods.prototypes import Prototypes, cosines
from metassl_monai.networks import Features, UNet2D, VNet3D

CLASSES = 3
TAP = "decoder.upsample.0.preconv"
RAMP = 0.3
BOTH = ("network", "second_network")
EXTRAS = {f"extra/{kind}_{name}" for kind in ("prototypes", "entropy") for name in BOTH}
PAIRS = {f"{stream}/{name}" for stream in ("labeled", "unlabeled") for name in BOTH}

Batch = dict[str, dict[str, Tensor]]


@pytest.fixture
def make() -> Callable[..., ALHVR]:
    """Two small U-Nets, sure enough of themselves that no region is empty."""

    def make(
        kind: str = "own", classes: int = CLASSES, unlabeled_loss: nn.Module | None = None, **options: Any
    ) -> ALHVR:
        torch.manual_seed(1)
        networks = [UNet2D(1, classes, features=(4, 8), dropout=(0.0, 0.0)) for _ in BOTH]
        with torch.no_grad():
            for network in networks:
                network.decoder.head.weight.mul_(3)
        own = CrossEntropyDiceLoss(scale=1.0), unlabeled_loss or SharpenedMSELoss()
        losses = own if kind == "own" else metassl_losses(classes)
        options = {"tap": TAP, "beta": 0.7, **options}
        return ALHVR(networks[0], *losses, lambda step: RAMP, second_network=networks[1], **options).train()

    return make


@pytest.fixture
def _same_perturbation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way the coin falls; what perturbs has tests of its own."""
    for name in PERTURBATIONS:
        monkeypatch.setitem(PERTURBATIONS, name, lambda x: x * (1 + 0.3 * torch.sin(torch.arange(x.shape[-1]))))


class Voxel(NamedTuple):
    plain: list[float]
    perturbed: list[float]
    feature: list[float]
    perturbed_feature: list[float]


def cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def by_voxel(*maps: Tensor) -> list[Voxel]:
    """All unlabeled voxels of a network, one image after the other."""
    columns = [m.detach().double().movedim(1, -1).flatten(0, -2).tolist() for m in maps]
    return [Voxel(*values) for values in zip(*columns, strict=True)]


def seen(network: nn.Module, batch: Batch) -> list[Voxel]:
    """What the slow side takes from a network: logits and features at the size of the image."""
    images = torch.cat([batch["labeled"]["image"], batch["unlabeled"]["image"]])
    features = Features(network, [TAP])
    logits, tapped, encoded = features.split(images)
    perturbed, tapped_again = features.decode_tapped([PERTURBATIONS["noise"](level) for level in encoded])
    size, labeled = images.shape[2:], len(batch["labeled"]["image"])
    fine = [F.interpolate(t[TAP], size, mode="bilinear") for t in (tapped, tapped_again)]
    return by_voxel(*(m[labeled:] for m in (logits, perturbed, *fine)))


class Slow(NamedTuple):
    terms: dict[str, float]
    counts: list[int]


def slow(first: list[Voxel], second: list[Voxel], beta: float = 0.7, published: bool = False) -> Slow:
    """Every unlabeled term by loops over voxels; ``published`` with the release's choices."""
    networks, voxels = (first, second), len(first)
    sure = [[max(softmax(voxel.perturbed)) for voxel in network] for network in networks]
    average = sorted((a + b) / 2 for a, b in zip(*sure, strict=True))
    lowest = average[: round(beta * voxels)]
    threshold = sum(lowest) / len(lowest)
    region = [(a >= threshold) + (b >= threshold) for a, b in zip(*sure, strict=True)]
    omega3 = [x for x in range(voxels) if region[x] == 0]
    terms: dict[str, float] = {}
    for k, name in enumerate(BOTH):
        own, other = networks[k], networks[1 - k]
        squares = entropy = 0.0
        for x in omega3:
            plain = [softmax(network[x].plain) for network in networks]
            teacher = networks[0 if max(plain[0]) >= max(plain[1]) else 1][x].plain
            if published:
                sharp = [q**10 / (q**10 + (1 - q) ** 10) for q in softmax(teacher)]
            else:
                powers = [q**10 for q in softmax(teacher)]
                sharp = [value / sum(powers) for value in powers]
            squares += sum((p - q) ** 2 for p, q in zip(softmax(own[x].perturbed), sharp, strict=True))
            for logits in (own[x].plain, own[x].perturbed):
                entropy -= sum(p * math.log(p) for p in softmax(logits))
        terms[f"unlabeled/{name}"] = squares / len(omega3)
        terms[f"extra/entropy_{name}"] = entropy / (voxels if published else len(omega3))

        sums = {c: [0.0] * len(own[0].feature) for c in range(CLASSES)}
        for voxel in other:
            total = sums[top(voxel.plain)]
            for i, value in enumerate(voxel.feature):
                total[i] += value
        prototypes = {c: total for c, total in sums.items() if any(total)}
        mine = [x for x in range(voxels) if sure[k][x] < threshold <= sure[1 - k][x]]
        cross_entropy = distance = 0.0
        for x in mine:
            label = top(other[x].plain)
            near = {c: cosine(own[x].perturbed_feature, vector) for c, vector in prototypes.items()}
            cross_entropy -= near[label] - math.log(sum(math.exp(value) for value in near.values()))
            distance += 1 - (sum(near.values()) / CLASSES if published else near[label])
        cross_entropy /= len(mine)
        weight = 3.0 if published else 1.0
        terms[f"extra/prototypes_{name}"] = weight * cross_entropy + distance / (voxels if published else len(mine))
    return Slow(terms, [region.count(number) for number in (2, 1, 0)])


@pytest.mark.usefixtures("_same_perturbation")
@pytest.mark.parametrize("published", [False, True], ids=["corrected", "published"])
def test_unlabeled_terms_of_several_images_equal_the_slow_computation(
    make: Callable, batch: Batch, published: bool
) -> None:
    """Among them the prototypes' cross-entropy: masks and cross-entropies of different images must not mix."""
    assert len(batch["unlabeled"]["image"]) == 3
    switches: dict[str, Any] = {}
    if published:
        switches = {"proto_ce_weight": 3.0, "cos_classes": "all", "volume_means": True, "detach": False}
        switches["unlabeled_loss"] = SharpenedMSELoss(sharpening="per_class", detach=False)
    method = make(**switches).double()
    batch = {stream: {key: value.double() for key, value in data.items()} for stream, data in batch.items()}
    expected = slow(*(seen(getattr(method, name), batch) for name in BOTH), published=published)
    assert all(count > 10 for count in expected.counts), expected.counts
    terms, _ = method(batch, 0)
    for name, value in expected.terms.items():
        assert terms[name].item() == pytest.approx(RAMP * value, rel=1e-6), name
    assert set(terms) == PAIRS | EXTRAS


@pytest.mark.parametrize("images", [2, 3])
def test_prototype_cross_entropy_counts_each_image_inside_its_own_mask(images: int) -> None:
    torch.manual_seed(0)
    similarity = torch.rand(images, CLASSES, 4, 4) * 2 - 1
    label = torch.randint(0, CLASSES, (images, 1, 4, 4))
    mask = torch.rand(images, 1, 4, 4) < torch.linspace(0.1, 0.9, images).view(-1, 1, 1, 1)
    values = [
        -similarity[b, :, y, x].log_softmax(0)[label[b, 0, y, x]].item()
        for b in range(images)
        for y in range(4)
        for x in range(4)
        if mask[b, 0, y, x]
    ]
    cross_entropy, _ = prototype_terms(similarity, torch.ones(CLASSES, dtype=torch.bool), label, mask)
    assert cross_entropy.item() == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_threshold_of_a_hand_made_vector() -> None:
    values = torch.tensor([0.9, 0.1, 0.95, 0.2, 0.3])
    assert mean_of_lowest(values, 0.8).item() == pytest.approx(0.375)
    assert mean_of_lowest(values, 1.0).item() == pytest.approx(0.49)
    assert mean_of_lowest(values, 0.01).item() == pytest.approx(0.1)
    assert mean_of_lowest(values.view(1, 5, 1), 0.5).item() == pytest.approx(0.15)


def test_regions_are_disjoint_and_cover_the_volume() -> None:
    torch.manual_seed(0)
    first, second = 2 * torch.randn(2, 3, CLASSES, 8, 8)
    regions = Regions.of(first, second, beta=0.8)
    counts = sum(regions.inside(name).int() for name in ("omega1", "omega2", "omega3"))
    assert counts.eq(1).all()
    sure = [logits.softmax(1).amax(1, keepdim=True) for logits in (first, second)]
    threshold = ((sure[0] + sure[1]) / 2).flatten().sort().values[: round(0.8 * 3 * 64)].mean()
    assert regions.inside("omega1").equal((sure[0] >= threshold) & (sure[1] >= threshold))
    assert regions.inside("omega3").equal((sure[0] < threshold) & (sure[1] < threshold))
    assert all(regions.inside(name).any() for name in ("omega1", "omega2", "omega3"))


def test_teacher_is_the_surer_one_and_the_first_of_equals() -> None:
    first = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.1, 0.0]]).view(1, 2, 3)
    second = torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 1.0]]).view(1, 2, 3)
    assert surer(first, second)[0].T.tolist() == [[2.0, 0.0], [3.0, 0.0], [1.0, 0.0]]


def test_sharpening_sums_to_one_for_four_classes_and_is_the_papers_for_two() -> None:
    torch.manual_seed(0)
    four, two = torch.randn(2, 4, 5, 5, dtype=torch.float64), 0.3 * torch.randn(2, 2, 5, 5, dtype=torch.float64)
    q = two.softmax(1)
    published = q**10 / (q**10 + (1 - q) ** 10)
    for name in ("renormalized", "per_class"):
        torch.testing.assert_close(SharpenedMSELoss(0.1, name).sharpen(two), published)
    torch.testing.assert_close(SharpenedMSELoss().sharpen(four).sum(1), torch.ones(2, 5, 5, dtype=torch.float64))
    q = four.softmax(1)
    torch.testing.assert_close(
        SharpenedMSELoss(0.1, "per_class").sharpen(four), q**10 / (q**10 + (1 - q) ** 10), rtol=1e-6, atol=1e-12
    )
    sure = torch.tensor([80.0, -80.0]).view(1, 2, 1).requires_grad_()
    for name in ("renormalized", "per_class"):
        loss = SharpenedMSELoss(0.1, name, detach=False)(torch.zeros(1, 2, 1), sure)
        loss.backward()
        assert loss.item() == pytest.approx(0.5)
        assert sure.grad.isfinite().all()


def test_sharpened_loss_has_gradient_to_the_reference_only_when_asked() -> None:
    for detach in (True, False):
        input, reference = torch.randn(2, 1, 3, 4, 4).requires_grad_().unbind()
        loss = SharpenedMSELoss(detach=detach)(input, reference, mask=torch.ones(1, 1, 4, 4))
        gradients = torch.autograd.grad(loss, (input, reference), allow_unused=True)
        assert gradients[0].abs().sum() > 0
        assert (gradients[1] is None) == detach
    assert SharpenedMSELoss()(input, reference, mask=torch.zeros(1, 1, 4, 4)) == 0


def reached(method: nn.Module, term: Tensor) -> set[str]:
    """Networks and their parts to which a term gives a gradient other than zero."""
    method.zero_grad(set_to_none=True)
    term.backward(retain_graph=True)
    parts = [f"{name}.{part}" for name in BOTH for part in ("encoder", "decoder.upsample", "decoder.head")]
    return {
        part
        for part in parts
        if any(p.grad is not None and bool(p.grad.ne(0).any()) for p in method.get_submodule(part).parameters())
    }


def whole(*names: str) -> set[str]:
    return {f"{name}.{part}" for name in names for part in ("encoder", "decoder.upsample", "decoder.head")}


def up_to_the_tap(*names: str) -> set[str]:
    return {part for part in whole(*names) if not part.endswith("head")}


@pytest.mark.parametrize("kind", ["own", "metassl"])
def test_each_term_trains_its_network_and_stops_at_teacher_and_prototypes(
    make: Callable, batch: Batch, kind: str
) -> None:
    method = make(kind)
    terms, _ = method(batch, 0)
    assert set(terms) == PAIRS | EXTRAS
    for name in BOTH:
        for term in (f"labeled/{name}", f"unlabeled/{name}", f"extra/entropy_{name}"):
            assert reached(method, terms[term]) == whole(name), term
        assert reached(method, terms[f"extra/prototypes_{name}"]) == up_to_the_tap(name)


def test_released_form_passes_gradients_through_teacher_and_prototypes(make: Callable, batch: Batch) -> None:
    method = make(unlabeled_loss=SharpenedMSELoss(detach=False), detach=False)
    terms, _ = method(batch, 0)
    for name in BOTH:
        assert reached(method, terms[f"unlabeled/{name}"]) == whole(*BOTH)
        assert reached(method, terms[f"extra/prototypes_{name}"]) == up_to_the_tap(*BOTH)


def test_pairs_judge_perturbed_predictions_by_the_teacher_where_none_is_sure(make: Callable, batch: Batch) -> None:
    pairs = make().pairs(batch, 0).pairs
    labeled, unlabeled = pairs[:2], pairs[2:]
    assert [pair.name for pair in pairs] == [*BOTH, *BOTH]
    assert labeled[0].prediction is not labeled[1].prediction
    assert labeled[0].reference.equal(labeled[1].prediction)
    assert unlabeled[0].reference is unlabeled[1].reference
    assert not unlabeled[0].reference.requires_grad
    assert unlabeled[0].mask.equal(unlabeled[1].mask)
    assert 0 < unlabeled[0].mask.sum() < unlabeled[0].mask.numel()


def test_regions_choose_where_the_pairs_count_and_partner_judges_plain_predictions(
    make: Callable, batch: Batch
) -> None:
    """Table 1: the loss of cross pseudo supervision, restricted to regions."""
    masks = {}
    for regions in (("omega1",), ("omega2",), ("omega3",), ("omega2", "omega3")):
        torch.manual_seed(0)
        method = make(reference="partner", regions=regions, prototypes=False, entropy=False)
        torch.manual_seed(3)
        step = method.pairs(batch, 0)
        masks[regions] = step.pairs[2].mask
        assert step.extras == {}
        first, second = step.pairs[2:]
        assert first.prediction.equal(second.reference)
        assert second.prediction.equal(first.reference)
    assert (masks["omega1",].int() + masks["omega2",].int() + masks["omega3",].int()).eq(1).all()
    assert masks["omega2", "omega3"].equal(~masks["omega1",])


@pytest.mark.parametrize(
    ("switches", "missing"),
    [
        ({"prototypes": False}, {term for term in EXTRAS if "prototypes" in term}),
        ({"entropy": False}, {term for term in EXTRAS if "entropy" in term}),
        (
            {"consistency": False},
            {term for term in EXTRAS if "entropy" in term} | {f"unlabeled/{name}" for name in BOTH},
        ),
    ],
    ids=["prototypes", "entropy", "consistency"],
)
def test_parts_can_be_left_out(make: Callable, batch: Batch, switches: dict[str, bool], missing: set[str]) -> None:
    assert set(make(**switches)(batch, 0)[0]) == (PAIRS | EXTRAS) - missing


def test_perturbation_is_one_of_two_for_all_levels_anew_for_each_network(
    make: Callable, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in PERTURBATIONS:
        monkeypatch.setitem(PERTURBATIONS, name, lambda x, name=name: (calls.append(name), x)[1])
    method = make()
    for step in range(20):
        method(batch, step)
    levels = [calls[i : i + 2] for i in range(0, len(calls), 2)]
    assert len(levels) == 40
    assert all(one == other for one, other in levels)
    coins = [(levels[i][0], levels[i + 1][0]) for i in range(0, 40, 2)]
    assert {coin for pair in coins for coin in pair} == {"noise", "most_active"}
    assert len(set(coins)) == 4


def test_absent_class_neither_competes_nor_breaks_anything(make: Callable, batch: Batch) -> None:
    features, label = torch.rand(2, 4, 3, 3), torch.randint(0, 2, (2, 1, 6, 6))
    prototypes = Prototypes.of(features, label, CLASSES)
    assert prototypes.present.tolist() == [True, True, False]
    similarity = cosines(features, prototypes, label)
    assert similarity[:, 2].eq(0).all()
    everywhere = torch.ones(2, 1, 6, 6)
    two = prototype_terms(similarity[:, :2], prototypes.present[:2], label, everywhere)
    three = prototype_terms(similarity, prototypes.present, label, everywhere)
    assert [value.item() for value in three] == pytest.approx([value.item() for value in two])
    method = make()
    for name in BOTH:  # both networks say background everywhere
        nn.init.constant_(getattr(method, name).decoder.head.bias[:1], 50.0)
    terms, _ = method(batch, 0)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_features_of_length_zero_have_finite_cosines_and_gradients() -> None:
    features = torch.zeros(1, 4, 3, 3, requires_grad=True)
    label = torch.zeros(1, 1, 6, 6, dtype=torch.long)
    cosines(features, Prototypes.of(torch.rand(1, 4, 3, 3), label, 2), label).sum().backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["own", "metassl"])
def test_runs_in_three_dimensions_on_a_network_that_monai_brings(make_batch: Callable, kind: str) -> None:
    batch = make_batch(spatial=(16, 16, 16))
    networks = [BasicUNet(3, 1, CLASSES, (2, 2, 4, 4, 4, 2), norm="batch") for _ in BOTH]
    vnets = [VNet3D(1, CLASSES, (2, 4, 4)) for _ in BOTH]
    for (first, second), tap in ((networks, "upcat_4"), (vnets, "decoder.blocks.0")):
        losses = (CrossEntropyDiceLoss(1.0), SharpenedMSELoss()) if kind == "own" else metassl_losses(CLASSES)
        method = ALHVR(first, *losses, lambda step: RAMP, second_network=second, tap=tap).train()
        terms, prediction = method(batch, 0)
        assert prediction.shape == (2, CLASSES, 16, 16, 16)
        assert set(terms) == PAIRS | EXTRAS
        sum(terms.values()).backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters())


def test_mixed_precision_sums_features_in_single_precision(make: Callable, batch: Batch) -> None:
    method = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms, _ = method(batch, 0)
        features = torch.full((2, 4, 64, 64), 1.0, dtype=torch.bfloat16)
        vectors = Prototypes.of(features, torch.zeros(2, 1, 64, 64), 2).vectors
    assert vectors.dtype == torch.float32
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())


def test_copy_trains_its_own_networks(make: Callable, batch: Batch) -> None:
    method = make()
    other = copy.deepcopy(method)
    assert [reader.network for reader in other.readers] == [other.network, other.second_network]
    sum(other(batch, 0)[0].values()).backward()
    assert all(p.grad is not None for p in other.parameters())
    assert all(p.grad is None for p in method.parameters())
    assert not [key for key in method.state_dict() if not key.startswith((*BOTH, "labeled_losses", "unlabeled_losses"))]
    assert method.inference_network is method.network


@pytest.mark.slow
@pytest.mark.usefixtures("_same_perturbation")
def test_compiled_method_takes_the_same_steps(make: Callable, batch: Batch) -> None:
    torch._dynamo.reset()
    eager, compiled = make(), make()
    compiled.load_state_dict(eager.state_dict())
    compile_method(compiled, backend="aot_eager")
    for _ in range(2):
        expected, terms = eager(batch, 0)[0], compiled(batch, 0)[0]
        for name, value in expected.items():
            torch.testing.assert_close(terms[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, r"^beta=0.0 is no share"),
        ({"beta": 1.1}, r"^beta=1.1 is no share"),
        ({"regions": ()}, r"^regions=\(\): name at least one of"),
        ({"regions": ("omega4",)}, r"^regions=\('omega4',\): name"),
        ({"reference": "other"}, r"^reference='other' is unknown: choose 'teacher' or 'partner'"),
        ({"cos_classes": "some"}, r"^cos_classes='some' is unknown"),
        ({"tap": "decoder.blocks.7"}, r"^UNet2D has no submodule 'decoder.blocks.7' to tap"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(make: Callable, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_tap_before_the_decoder_is_refused(make: Callable, batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"^tap='encoder.blocks.0' lies before the decoder: name"):
        make(tap="encoder.blocks.0")(batch, 0)


def test_wrong_networks_are_refused() -> None:
    network = UNet2D(1, 2, features=(4, 8), dropout=(0.0, 0.0))
    arguments = (*metassl_losses(2), lambda step: 1.0)
    with pytest.raises(ValueError, match=r"^network and second_network are the same object"):
        ALHVR(network, *arguments, second_network=network, tap=TAP)
    with pytest.raises(ValueError, match=r"^where the encoder of Sequential ends is not known"):
        ALHVR(nn.Sequential(nn.Conv2d(1, 2, 1)), *arguments, second_network=nn.Sequential(nn.Conv2d(1, 2, 1)), tap="0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"temperature": 0.0}, "^temperature=0.0: choose"), ({"sharpening": "no"}, "^sharpening='no' is unknown")],
    ids=str,
)
def test_wrong_arguments_of_the_sharpened_loss_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SharpenedMSELoss(**arguments)
