# SPDX-License-Identifier: Apache-2.0
"""What every loss of this package obeys, MetaSSL's and the backbones' own alike: a table of losses, a test a law."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from metassl_monai.losses import (
    AdaptiveThreshold,
    ConflictPseudoLabelLoss,
    CrossEntropyDiceLoss,
    CrossEntropyLinearDiceLoss,
    DecoupledConsistencyLoss,
    FixedThreshold,
    FlexMatchThreshold,
    FreeMatchThreshold,
    KLDivergenceLoss,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    MonitoredLoss,
    PseudoLabelDiceLoss,
    PseudoLabelLinearDiceLoss,
    PseudoLabelLoss,
    Region,
    ReleasedLabeledLoss,
    ReliablePseudoLabelLoss,
    SharpenedMSELoss,
    SoftmaxMSELoss,
    UncertaintyRectifiedLoss,
    metassl_losses,
)
from metassl_monai.losses import backbone as backbone_module
from metassl_monai.losses import metassl as metassl_module
from metassl_monai.losses.cross_entropy_dice import cross_entropy_and_dice

METASSL: dict[str, Callable[[int], nn.Module]] = {
    "unlabeled": MetaSSLUnlabeledLoss,
    "unlabeled-region": lambda c: MetaSSLUnlabeledLoss(c, normalization="region", scale=50.0),
    "unlabeled-fixed": lambda c: MetaSSLUnlabeledLoss(c, threshold=FixedThreshold(0.6), phi="reciprocal"),
    "unlabeled-std": lambda c: MetaSSLUnlabeledLoss(c, confidence="std", phi="cosine"),
    "unlabeled-confidence": lambda c: MetaSSLUnlabeledLoss(c, mode="confidence"),
    "unlabeled-consistency": lambda c: MetaSSLUnlabeledLoss(c, mode="consistency"),
    "unlabeled-flexmatch": lambda c: MetaSSLUnlabeledLoss(c, threshold=FlexMatchThreshold(c, value=0.7, keep=0.5)),
    "unlabeled-freematch": lambda c: MetaSSLUnlabeledLoss(c, threshold=FreeMatchThreshold(c, keep=0.5)),
    "unlabeled-released": lambda c: metassl_losses(c, "ref_3d")[1],
    "unlabeled-region-accuracy": lambda c: metassl_losses(c, "region_accuracy")[1],
    "unlabeled-slip": lambda c: metassl_losses(c, "ref_cct2d", unanimous="released", threshold=0.5)[1],
    "labeled": MetaSSLLabeledLoss,
    "labeled-region": lambda c: MetaSSLLabeledLoss(c, normalization="region", scale=0.5),
    "labeled-fixed": lambda c: MetaSSLLabeledLoss(c, threshold=FixedThreshold(0.6), phi="linear"),
    "labeled-mad": lambda c: MetaSSLLabeledLoss(c, confidence="mad", threshold=AdaptiveThreshold(c, keep=0.5)),
    "labeled-consistency": lambda c: MetaSSLLabeledLoss(c, mode="consistency", beta=1.0),
    "labeled-freematch-pair": lambda c: ReleasedLabeledLoss(
        c, threshold=FreeMatchThreshold(c, keep=0.5), discrepancy="pair"
    ),
    "labeled-self": lambda c: ReleasedLabeledLoss(c, judge="self", weights=(1.0, 0.5, 0.0, 0.25), ramped=True),
    "labeled-released": lambda c: metassl_losses(c, "ref_cps2d")[0],
    "labeled-region-accuracy": lambda c: metassl_losses(c, "region_accuracy")[0],
}
LOSSES: dict[str, Callable[[int], nn.Module]] = {
    **METASSL,
    "cross-entropy-dice": lambda c: CrossEntropyDiceLoss(),
    "pseudo-label": lambda c: PseudoLabelLoss(),
    "pseudo-label-sure": lambda c: PseudoLabelLoss(threshold=0.6),
    "pseudo-label-dice": lambda c: PseudoLabelDiceLoss(),
    "softmax-mse": lambda c: SoftmaxMSELoss(),
    "kl-divergence": lambda c: KLDivergenceLoss(),
    "conflict": lambda c: ConflictPseudoLabelLoss(threshold=0.6, weight=3.0),
    "decoupled": lambda c: DecoupledConsistencyLoss(),
    "rectified": lambda c: UncertaintyRectifiedLoss(),
    "reliable": lambda c: ReliablePseudoLabelLoss(),
    "sharpened": lambda c: SharpenedMSELoss(temperature=0.5),
    "sharpened-per-class": lambda c: SharpenedMSELoss(temperature=0.5, sharpening="per_class"),
    "cross-entropy-linear-dice": lambda c: CrossEntropyLinearDiceLoss(),
    "pseudo-label-linear-dice": lambda c: PseudoLabelLinearDiceLoss(),
    "monitored-unlabeled": lambda c: MonitoredLoss(PseudoLabelLoss(), MetaSSLUnlabeledLoss(c)),
    "monitored-labeled": lambda c: MonitoredLoss(CrossEntropyDiceLoss(), MetaSSLLabeledLoss(c)),
}
SPLITS_BACKGROUND = ("unlabeled-released", "unlabeled-slip", "labeled-released")  # class 0 is not like the others
every_loss = pytest.mark.parametrize("build", list(LOSSES.values()), ids=list(LOSSES))
every_metassl = pytest.mark.parametrize("build", list(METASSL.values()), ids=list(METASSL))
WITH_REGIONS = {**METASSL, **{name: build for name, build in LOSSES.items() if name.startswith("monitored")}}
has_regions = pytest.mark.parametrize("build", list(WITH_REGIONS.values()), ids=list(WITH_REGIONS))
IGNORES_REFERENCE = ("cross-entropy-dice", "cross-entropy-linear-dice")
IGNORES_LABEL = (*IGNORES_REFERENCE, "softmax-mse", "kl-divergence", "rectified", "sharpened", "sharpened-per-class")
VALUES_OF_MASK = ("decoupled", "reliable")  # what stands in the mask decides, not whether it is zero alone
DIVIDES_BY_ALL = ("decoupled",)  # also by the voxels outside the mask
CHECKS_LABEL = {name: build for name, build in LOSSES.items() if name not in IGNORES_LABEL}
# these look at the label without an effect on the loss: a network judges itself, weights are alike, a monitor watches
WITHOUT_EFFECT = ("labeled-self", "labeled-region-accuracy", "monitored-labeled")
READS_LABEL = [name for name in CHECKS_LABEL if name not in WITHOUT_EFFECT]
READS_REFERENCE = {name: build for name, build in LOSSES.items() if name not in IGNORES_REFERENCE}
DETACHES_REFERENCE = {name: build for name, build in LOSSES.items() if name != "kl-divergence"}
detaches_reference = pytest.mark.parametrize("build", list(DETACHES_REFERENCE.values()), ids=list(DETACHES_REFERENCE))


class Batch(NamedTuple):
    """Everything that a loss of this package may be given."""

    input: Tensor
    target: Tensor
    reference: Tensor
    label: Tensor
    mask: Tensor


def make_batch(seed: int = 0, classes: int = 3, spatial: tuple[int, ...] = (4, 5), dtype: Any = torch.float32) -> Batch:
    """Two images in which all regions occur: input and target follow the reference in about half of the voxels."""
    random = torch.Generator().manual_seed(seed)
    maps = (2, 1, *spatial)

    def often(probability: float) -> Tensor:
        return torch.rand(maps, generator=random) < probability

    reference, noise = (2 * torch.randn(2, classes, *spatial, generator=random, dtype=dtype) for _ in range(2))
    own = reference.argmax(dim=1, keepdim=True)
    any_class = [torch.randint(0, classes, maps, generator=random) for _ in range(2)]
    return Batch(
        input=torch.where(often(0.5), 0.7 * reference, noise),
        target=torch.where(often(0.5), own, any_class[0]),
        reference=reference,
        label=torch.where(often(0.7), own, any_class[1]),
        mask=often(0.6),
    )


def is_labeled(loss: nn.Module) -> bool:
    if isinstance(loss, MonitoredLoss):
        return is_labeled(loss.loss)
    return isinstance(loss, (MetaSSLLabeledLoss, CrossEntropyDiceLoss, CrossEntropyLinearDiceLoss))


def call(loss: nn.Module, batch: Batch, label: bool = True, mask: bool = True) -> Tensor:
    """Call a labeled or an unlabeled loss on what it reads of ``batch``."""
    target = (batch.target,) if is_labeled(loss) else ()
    label_map, mask_map = batch.label if label else None, batch.mask if mask else None
    return loss(batch.input, *target, batch.reference, label=label_map, mask=mask_map)


def value_and_gradient(loss: nn.Module, batch: Batch, **options: bool) -> tuple[Tensor, Tensor]:
    input = batch.input.detach().clone().requires_grad_()
    value = call(loss, batch._replace(input=input), **options)
    value.backward()
    return value.detach(), input.grad


def map_all(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    return Batch(*(change(tensor) for tensor in batch))


def thresholds(loss: nn.Module) -> list[Tensor]:
    """All that the thresholds of a loss keep."""
    return list(loss.state_dict().values())


def used_thresholds(loss: nn.Module) -> list[Tensor]:
    """The thresholds themselves, without what they are computed from."""
    return [values for key, values in loss.state_dict().items() if key.endswith("values")]


def decays(loss: nn.Module) -> bool:
    return any(getattr(module, "absent", None) == "decay" for module in loss.modules())


few = settings(max_examples=6, deadline=None, derandomize=True)
batches = st.builds(
    make_batch,
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 8),
    spatial=st.sampled_from([(6, 5), (3, 4, 3)]),
    dtype=st.just(torch.float64),
)
flags = st.booleans()


# ---- what comes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial", [(6, 5), (3, 4, 3)], ids=["2d", "3d"])
@pytest.mark.parametrize("classes", [2, 3, 8])
@every_loss
def test_a_finite_scalar_with_gradient(build, classes, spatial):
    value, gradient = value_and_gradient(build(classes), make_batch(1, classes, spatial))
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value > 0
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_the_batches_of_this_file_hold_all_four_regions():
    for classes in (2, 3, 5):
        for build in (METASSL["unlabeled-fixed"], METASSL["labeled-fixed"]):
            loss = build(classes)
            call(loss, make_batch(0, classes))
            assert (loss.region_counts > 0).all()


@pytest.mark.parametrize("with_mask", [False, True])
@has_regions
def test_regions_and_counts_are_detached_and_cover_each_voxel_once(build, with_mask):
    batch = make_batch()
    loss = build(3)
    call(loss, batch._replace(input=batch.input.requires_grad_()), mask=with_mask)
    assert loss.regions.shape == batch.target.shape
    assert loss.regions.dtype == torch.uint8
    assert loss.region_counts.shape == (4,)
    assert not loss.regions.requires_grad
    assert not loss.region_counts.requires_grad
    inside = batch.mask if with_mask else torch.ones_like(batch.mask)
    assert loss.region_counts.tolist() == [((loss.regions == region) & inside).sum() for region in Region]
    assert loss.region_counts.sum() == inside.sum()
    assert loss.foreground_counts.shape == (4,)
    assert not loss.foreground_counts.requires_grad
    assert (loss.foreground_counts <= loss.region_counts).all()


@has_regions
def test_regions_are_none_before_the_first_call(build):
    assert build(3).regions is None
    assert build(3).region_counts is None
    assert build(3).foreground_counts is None


# ---- equal to a plain loss ------------------------------------------------------------------------------------------

PLAIN_OPTIONS = [
    {},
    {"confidence": "mad", "phi": "cosine"},
    {"mode": "confidence", "phi": "linear"},
    {"mode": "consistency", "phi": "reciprocal"},
]
dice_options = {"softmax": True, "to_onehot_y": True, "batch": True, "smooth_nr": 1e-5, "smooth_dr": 1e-5}


@pytest.mark.parametrize("options", PLAIN_OPTIONS)
@given(batch=batches)
@few
def test_delta_zero_is_cross_entropy_on_unlabeled_data(options, batch):
    loss = MetaSSLUnlabeledLoss(batch.input.shape[1], delta=0.0, **options)
    expected = F.cross_entropy(batch.input, batch.label.squeeze(1))
    torch.testing.assert_close(call(loss, batch, mask=False), expected)
    expected = F.cross_entropy(batch.input, batch.reference.argmax(dim=1))
    torch.testing.assert_close(call(loss, batch, label=False, mask=False), expected)


@pytest.mark.parametrize("options", PLAIN_OPTIONS)
@given(batch=batches)
@few
def test_delta_zero_is_cross_entropy_and_monai_dice_on_labeled_data(options, batch):
    loss = MetaSSLLabeledLoss(batch.input.shape[1], delta=0.0, **options)
    expected = F.cross_entropy(batch.input, batch.target.squeeze(1)) + DiceLoss(**dice_options)(
        batch.input, batch.target
    )
    torch.testing.assert_close(call(loss, batch, mask=False), expected)


@given(batch=batches)
@few
def test_cross_entropy_dice_is_the_monai_loss_of_its_docstring(batch):
    options = {"softmax": True, "to_onehot_y": True, "squared_pred": True, "batch": True}
    monai = DiceCELoss(**options, lambda_dice=0.5, lambda_ce=0.5)
    torch.testing.assert_close(call(CrossEntropyDiceLoss(), batch, mask=False), monai(batch.input, batch.target))


@given(batch=batches)
@few
def test_pseudo_label_is_cross_entropy_with_the_hard_label(batch):
    loss = PseudoLabelLoss()
    expected = F.cross_entropy(batch.input, batch.reference.argmax(dim=1))
    torch.testing.assert_close(call(loss, batch, label=False, mask=False), expected)
    expected = F.cross_entropy(batch.input, batch.label.squeeze(1))
    torch.testing.assert_close(call(loss, batch, mask=False), expected)


@given(batch=batches)
@few
def test_softmax_mse_is_mse_of_the_probabilities(batch):
    expected = F.mse_loss(batch.input.softmax(dim=1), batch.reference.softmax(dim=1))
    torch.testing.assert_close(call(SoftmaxMSELoss(), batch, mask=False), expected)


# ---- symmetries -----------------------------------------------------------------------------------------------------

SYMMETRIES: dict[str, Callable[[Tensor], Tensor]] = {
    "batch-order": lambda t: t.flip(0),
    "flip": lambda t: t.flip(2),
    "transposed-view": lambda t: t.transpose(2, 3),
    "rolled": lambda t: t.roll((1, 2), dims=(2, 3)),
    "channels-last-memory": lambda t: t.movedim(1, -1).contiguous().movedim(-1, 1),
}


@pytest.mark.parametrize("change", list(SYMMETRIES.values()), ids=list(SYMMETRIES))
@every_loss
@given(batch=batches, label=flags, mask=flags)
@settings(few, max_examples=3)
def test_moving_voxels_changes_nothing(build, change, batch, label, mask):
    loss, moved = build(batch.input.shape[1]), build(batch.input.shape[1])
    value, gradient = value_and_gradient(loss, batch, label=label, mask=mask)
    moved_value, moved_gradient = value_and_gradient(moved, map_all(batch, change), label=label, mask=mask)
    torch.testing.assert_close(moved_value, value)
    torch.testing.assert_close(moved_gradient, change(gradient))
    torch.testing.assert_close(thresholds(moved), thresholds(loss))
    if hasattr(loss, "regions"):
        assert torch.equal(moved.regions, change(loss.regions))


def reordered(values: Tensor, order: Tensor) -> Tensor:
    """Reorder the classes of a state, last dimension, perhaps with more behind them; one number stays as it is."""
    classes = len(order)
    return values if values.ndim == 0 else torch.cat([values[..., order], values[..., classes:]], dim=-1)


@pytest.mark.parametrize("name", list(LOSSES))
@given(batch=batches, label=flags, mask=flags, seed=st.integers(0, 2**31))
@few
def test_renaming_classes_changes_nothing(name, batch, label, mask, seed):
    build, classes = LOSSES[name], batch.input.shape[1]
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(classes, generator=random)
    if name in SPLITS_BACKGROUND:
        order = torch.cat([order[order == 0], order[order != 0]])
    rank = order.argsort()
    renamed_batch = Batch(
        batch.input[:, order], rank[batch.target], batch.reference[:, order], rank[batch.label], batch.mask
    )
    loss, renamed = build(classes), build(classes)
    for key, start in loss.state_dict().items():
        start.copy_(torch.rand(start.shape, generator=random))
        renamed.state_dict()[key].copy_(reordered(start, order))
    value, gradient = value_and_gradient(loss, batch, label=label, mask=mask)
    renamed_value, renamed_gradient = value_and_gradient(renamed, renamed_batch, label=label, mask=mask)
    torch.testing.assert_close(renamed_value, value)
    torch.testing.assert_close(renamed_gradient, gradient[:, order])
    torch.testing.assert_close(thresholds(renamed), [reordered(values, order) for values in thresholds(loss)])


@pytest.mark.parametrize("factor", [0.01, 3.0, 85.0])
@given(batch=batches)
@few
def test_a_factor_on_all_weights_leaves_total_normalization_unchanged(factor, batch):
    loss, heavier = (MetaSSLUnlabeledLoss(batch.input.shape[1]) for _ in range(2))
    heavier.region_weights.weights.mul_(factor)
    torch.testing.assert_close(call(heavier, batch), call(loss, batch), rtol=1e-6, atol=0)


@pytest.mark.parametrize("labeled", [False, True])
@given(batch=batches, scale=st.sampled_from([0.0, 0.1, 50.0]))
@few
def test_scale_is_a_factor_on_the_whole_loss(labeled, batch, scale):
    build = MetaSSLLabeledLoss if labeled else MetaSSLUnlabeledLoss
    value, gradient = value_and_gradient(build(batch.input.shape[1]), batch)
    scaled, scaled_gradient = value_and_gradient(build(batch.input.shape[1], scale=scale), batch)
    torch.testing.assert_close(scaled, scale * value)
    torch.testing.assert_close(scaled_gradient, scale * gradient)


@pytest.mark.parametrize("build", [MetaSSLLabeledLoss, lambda c: CrossEntropyDiceLoss()])
def test_ramp_leaves_the_labeled_losses_alone(build):
    batch = make_batch()
    values = [build(3)(batch.input, batch.target, batch.reference, ramp=ramp) for ramp in (0.0, 0.5, 1.0)]
    assert values[0] == values[1] == values[2]


def test_the_prediction_plays_no_role_in_the_labeled_regions():
    batch = make_batch()
    first, second = MetaSSLLabeledLoss(3), MetaSSLLabeledLoss(3)
    call(first, batch)
    call(second, batch._replace(input=-batch.input))
    assert torch.equal(first.regions, second.regions)


# ---- label and mask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in DIVIDES_BY_ALL])
@given(batch=batches, label=flags)
@few
def test_mask_equals_cropping(name, batch, label):
    """A mask over the first rows equals a call on those rows: loss, gradient, normalizer, thresholds."""
    mask = torch.zeros_like(batch.mask)
    mask[:, :, :2] = True
    build = LOSSES[name]
    loss, cropped = build(batch.input.shape[1]), build(batch.input.shape[1])
    value, gradient = value_and_gradient(loss, batch._replace(mask=mask), label=label)
    crop = map_all(batch, lambda t: t[:, :, :2])
    cropped_value, cropped_gradient = value_and_gradient(cropped, crop, label=label, mask=False)
    torch.testing.assert_close(value, cropped_value)
    torch.testing.assert_close(gradient[:, :, :2], cropped_gradient)
    assert (gradient[:, :, 2:] == 0).all()
    torch.testing.assert_close(thresholds(loss), thresholds(cropped))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in VALUES_OF_MASK])
def test_any_non_zero_mask_value_means_inside(name):
    build, batch = LOSSES[name], make_batch()
    random = torch.Generator().manual_seed(0)
    expected = call(build(3), batch)
    factors = torch.randint(1, 200, batch.mask.shape, generator=random)
    for mask in (batch.mask.float(), (batch.mask * factors).to(torch.uint8), -0.5 * batch.mask):
        torch.testing.assert_close(call(build(3), batch._replace(mask=mask)), expected)


@every_loss
def test_a_full_mask_is_no_mask(build):
    batch = make_batch()
    full = batch._replace(mask=torch.ones_like(batch.mask))
    torch.testing.assert_close(call(build(3), full), call(build(3), full, mask=False))


@every_loss
def test_an_empty_mask_gives_zero_and_moves_nothing(build):
    batch = make_batch()
    loss = build(3)
    call(loss, batch)
    before = copy.deepcopy(used_thresholds(loss))
    value, gradient = value_and_gradient(loss, batch._replace(mask=torch.zeros_like(batch.mask)))
    assert value == 0
    assert (gradient == 0).all()
    if decays(loss):  # every class is absent
        before = [0.5 * values for values in before]
    torch.testing.assert_close(used_thresholds(loss), before)


@every_loss
def test_label_defaults_to_the_argmax_of_the_reference(build):
    batch = make_batch()
    batch = batch._replace(label=batch.reference.argmax(dim=1, keepdim=True))
    assert call(build(3), batch) == call(build(3), batch, label=False)


@pytest.mark.parametrize("name", READS_LABEL)
def test_another_label_changes_the_loss(name):
    batch = make_batch()
    assert call(LOSSES[name](3), batch) != call(LOSSES[name](3), batch, label=False)


@every_loss
def test_float_and_uint8_maps_are_accepted(build):
    batch = make_batch()
    expected = call(build(3), batch)
    for dtype in (torch.float32, torch.uint8, torch.int32):
        changed = batch._replace(target=batch.target.to(dtype), label=batch.label.to(dtype), mask=batch.mask.to(dtype))
        torch.testing.assert_close(call(build(3), changed), expected)


# ---- gradient -------------------------------------------------------------------------------------------------------


@detaches_reference
def test_no_gradient_to_the_reference(build):
    batch = make_batch()
    reference = batch.reference.clone().requires_grad_()
    input = batch.input.clone().requires_grad_()
    call(build(3), batch._replace(input=input, reference=reference)).backward()
    assert reference.grad is None or (reference.grad == 0).all()
    assert input.grad.abs().sum() > 0


@detaches_reference
def test_the_input_as_its_own_reference_is_detached(build):
    batch = make_batch()
    _, expected = value_and_gradient(build(3), batch._replace(reference=batch.input.clone()), label=False)
    input = batch.input.clone().requires_grad_()
    call(build(3), batch._replace(input=input, reference=input), label=False).backward()
    torch.testing.assert_close(input.grad, expected)


def silence(monkeypatch: pytest.MonkeyPatch, term: str | None) -> None:
    """Make one term of the losses a constant zero."""
    if term is None:
        return
    position = ("cross-entropy", "dice").index(term)

    def silenced(logits, *rest):
        parts = list(cross_entropy_and_dice(logits, *rest))
        parts[position] = 0 * logits.detach().sum()
        return tuple(parts)

    for module in (metassl_module, backbone_module):
        monkeypatch.setattr(module, "cross_entropy_and_dice", silenced)


@pytest.mark.parametrize(
    ("name", "silent"),
    [
        ("unlabeled", None),
        ("unlabeled-region", None),
        ("labeled", "dice"),
        ("labeled", "cross-entropy"),
        ("labeled-region", "dice"),
        ("labeled-region", "cross-entropy"),
        ("cross-entropy-dice", "dice"),
        ("cross-entropy-dice", "cross-entropy"),
        ("pseudo-label", None),
        ("softmax-mse", None),
        ("unlabeled-released", None),
        ("unlabeled-region-accuracy", None),
        ("labeled-released", "dice"),
        ("pseudo-label-dice", "dice"),
        ("pseudo-label-dice", "cross-entropy"),
        ("kl-divergence", None),
        ("conflict", None),
        ("decoupled", None),
        ("rectified", None),
        ("reliable", None),
        ("sharpened", None),
        ("pseudo-label-linear-dice", None),
        ("monitored-unlabeled", None),
    ],
)
def test_each_term_alone_reaches_every_voxel_inside_and_none_outside(monkeypatch, name, silent):
    silence(monkeypatch, silent)
    batch = make_batch()
    input, reference = batch.input.clone().requires_grad_(), batch.reference.clone().requires_grad_()
    call(LOSSES[name](3), batch._replace(input=input, reference=reference)).backward()
    strength = input.grad.abs().sum(dim=1, keepdim=True)
    assert (strength[batch.mask] > 0).all()
    assert (strength[~batch.mask] == 0).all()
    assert name == "kl-divergence" or reference.grad is None or (reference.grad == 0).all()


@pytest.mark.parametrize("with_mask", [False, True])
@every_loss
def test_gradcheck(build, with_mask):
    batch = make_batch(3, 3, (3, 3), dtype=torch.float64)
    loss = build(3).eval()
    input = batch.input.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: call(loss, batch._replace(input=x), mask=with_mask), (input,))


# ---- hard inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("extreme", ["input", "reference", "both"])
@every_loss
def test_huge_logits_stay_finite(build, extreme, dtype):
    batch = make_batch(0, 3, dtype=torch.float64)

    def huge(logits: Tensor) -> Tensor:
        return (1e4 * logits.sign()).to(dtype)

    batch = batch._replace(
        input=batch.input.to(dtype) if extreme == "reference" else huge(batch.input),
        reference=batch.reference.to(dtype) if extreme == "input" else huge(batch.reference),
    )
    loss = build(3)
    value, gradient = value_and_gradient(loss, batch)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert all(values.isfinite().all() for values in thresholds(loss))


@every_loss
def test_a_class_absent_from_batch_and_labels(build):
    batch = make_batch(0, 4)
    loss = build(4)
    judge = "input" if getattr(loss, "judge", "reference") == "self" else "reference"
    logits = getattr(batch, judge).clone()
    logits[:, 3] = -1e4
    batch = batch._replace(**{judge: logits}, target=batch.target.clamp_max(2), label=batch.label.clamp_max(2))
    value, gradient = value_and_gradient(loss, batch)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert all(values.isfinite().all() for values in thresholds(loss))
    if isinstance(getattr(getattr(loss, "partition", None), "threshold", None), AdaptiveThreshold):
        expected = 0.45 if decays(loss) else 0.5
        assert all(values[3].item() == pytest.approx(expected) for values in used_thresholds(loss))


@pytest.mark.parametrize("normalization", ["total", "region"])
@pytest.mark.parametrize("labeled", [False, True])
@pytest.mark.parametrize("only", list(Region), ids=lambda region: region.name)
def test_all_voxels_in_one_region(only, labeled, normalization):
    batch = make_batch()
    own = batch.reference.argmax(dim=1, keepdim=True)
    other = (own + (only in (Region.DC, Region.DS))) % 3
    input = F.one_hot(other.squeeze(1), 3).movedim(-1, 1).float()
    batch = batch._replace(input=input, target=other)
    value_of_threshold = 0.0 if only in (Region.UC, Region.DC) else 1.0
    build = MetaSSLLabeledLoss if labeled else MetaSSLUnlabeledLoss
    loss = build(3, threshold=FixedThreshold(value_of_threshold), normalization=normalization)
    value, gradient = value_and_gradient(loss, batch, label=False)
    assert (loss.regions == only).all()
    assert value.isfinite()
    assert gradient.isfinite().all()
    if normalization == "total" and not labeled:  # one weight for all voxels cancels
        torch.testing.assert_close(value, F.cross_entropy(input, own.squeeze(1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_loss
def test_half_precision_is_computed_in_float32(build, dtype):
    batch = make_batch(0, 3, (16, 16))
    half = batch._replace(input=batch.input.to(dtype), reference=batch.reference.to(dtype))
    full = half._replace(input=half.input.float(), reference=half.reference.float())
    loss, exact = build(3), build(3)
    value, gradient = value_and_gradient(loss, half)
    exact_value, exact_gradient = value_and_gradient(exact, full)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, exact_value)
    torch.testing.assert_close(gradient.float(), exact_gradient, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(thresholds(loss), thresholds(exact))
    torch.testing.assert_close(value, call(build(3), batch), rtol=3e-2, atol=0)


@every_loss
def test_autocast_equals_float32(build):
    batch = make_batch()
    expected, expected_gradient = value_and_gradient(build(3), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(build(3), batch)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@every_loss
def test_meta_tensors_of_monai_are_accepted(build):
    batch = make_batch()
    expected, expected_gradient = value_and_gradient(build(3), batch)
    value, gradient = value_and_gradient(build(3), map_all(batch, MetaTensor))
    torch.testing.assert_close(torch.as_tensor(value).as_subclass(Tensor), expected)
    torch.testing.assert_close(gradient.as_subclass(Tensor), expected_gradient)


@every_loss
def test_float64_is_kept(build):
    batch = make_batch(dtype=torch.float64)
    value, gradient = value_and_gradient(build(3), batch)
    assert value.dtype == gradient.dtype == torch.float64


# ---- as an object ---------------------------------------------------------------------------------------------------


@every_loss
def test_deepcopy_before_and_after_a_call(build):
    batch = make_batch()
    loss = build(3)
    early = copy.deepcopy(loss)
    input = batch.input.clone().requires_grad_()
    call(loss, batch._replace(input=input))  # no backward: a graph is alive while the copy is made
    late = copy.deepcopy(loss)
    call(early, batch)
    torch.testing.assert_close(thresholds(early), thresholds(loss), rtol=0, atol=0)
    assert call(early, batch) == call(late, batch) == call(loss, batch)
    call(late, batch)
    states = list(zip(thresholds(late), thresholds(loss), strict=True))
    assert not states or any((a != b).any() for a, b in states)


@every_loss
def test_inputs_are_left_alone(build):
    batch = make_batch()
    before = map_all(batch, torch.clone)
    call(build(3), batch)
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))


@every_loss
def test_two_calls_before_one_backward(build):
    """The threshold moves in place between the calls; that must not spoil the graph of the first."""
    batch = make_batch()
    loss = build(3)
    input = batch.input.clone().requires_grad_()
    total = call(loss, batch._replace(input=input)) + call(loss, batch._replace(input=input))
    total.backward()
    assert input.grad.isfinite().all()


def compare_compiled(build: Callable[[int], nn.Module], backend: str, optional: bool) -> None:
    """Two training steps; with ``optional`` a label and a mask are passed as well."""
    torch.compiler.reset()
    batch = make_batch(0, 3, (4, 4))
    eager, plain = build(3), build(3)
    compiled = torch.compile(plain, backend=backend, fullgraph=True)
    for _ in range(2):
        value, gradient = value_and_gradient(eager, batch, label=optional, mask=optional)
        input = batch.input.clone().requires_grad_()
        target = (batch.target,) if is_labeled(plain) else ()
        options = {"label": batch.label, "mask": batch.mask} if optional else {}
        compiled_value = compiled(input, *target, batch.reference, **options)
        compiled_value.backward()
        torch.testing.assert_close(compiled_value.detach(), value)
        torch.testing.assert_close(input.grad, gradient)
        torch.testing.assert_close(thresholds(plain), thresholds(eager))
    if hasattr(eager, "regions"):
        assert torch.equal(plain.regions, eager.regions)
        assert torch.equal(plain.region_counts, eager.region_counts)
        assert torch.equal(plain.foreground_counts, eager.foreground_counts)


# Compiling takes long: the slow test compiles everything, and this one leaves out what others of its kind run too.
COMPILED_ONCE = (
    *("conflict", "rectified", "sharpened", "pseudo-label-linear-dice"),
    *("unlabeled-flexmatch", "unlabeled-freematch", "labeled-released", "kl-divergence"),
)
COMPILED_SLOWLY = (
    *("unlabeled-released", "unlabeled-slip", "labeled-freematch-pair", "labeled-self"),
    *("pseudo-label-sure", "pseudo-label-dice", "monitored-unlabeled", "monitored-labeled"),
    *("sharpened-per-class", "cross-entropy-linear-dice"),
)
COMPILED = [
    (name, optional)
    for name in LOSSES
    for optional in (False, True)
    if name not in COMPILED_SLOWLY and (optional or name not in COMPILED_ONCE)
]


@pytest.mark.parametrize(("name", "optional"), COMPILED)
def test_compiled_equals_eager(name, optional):
    compare_compiled(LOSSES[name], "aot_eager", optional)


@pytest.mark.slow
@pytest.mark.parametrize("optional", [False, True], ids=["plain", "label-and-mask"])
@every_loss
def test_compiled_by_inductor_equals_eager(build, optional):
    compare_compiled(build, "inductor", optional)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 4, 4, 5), (2, 2, 4, 5)], ids=["too-many", "too-few"])
@every_metassl
def test_wrong_channel_count_of_the_input_is_named(build, shape):
    batch = make_batch()._replace(input=torch.zeros(shape))
    with pytest.raises(ValueError, match="num_classes") as error:
        call(build(3), batch, label=False, mask=False)
    assert str(shape) in str(error.value)
    assert "(batch, 3, *spatial)" in str(error.value)


BAD_MAPS = {
    "no-channel": (2, 4, 5),
    "one-hot": (2, 3, 4, 5),
    "other-size": (2, 1, 4, 6),
    "other-batch": (1, 1, 4, 5),
}


def check_map_error(loss: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    batch = make_batch()._replace(**{name: torch.ones(shape, dtype=torch.long)})
    with pytest.raises(ValueError, match=rf"\b{name}\b.*shape") as error:
        call(loss, batch)
    assert str(shape) in str(error.value)
    assert "(2, 1, 4, 5)" in str(error.value)


@pytest.mark.parametrize("shape", list(BAD_MAPS.values()), ids=list(BAD_MAPS))
@pytest.mark.parametrize("name", [name for name, build in LOSSES.items() if is_labeled(build(3))])
def test_wrong_target_shape_is_named(name, shape):
    check_map_error(LOSSES[name](3), "target", shape)


@pytest.mark.parametrize("shape", list(BAD_MAPS.values()), ids=list(BAD_MAPS))
@pytest.mark.parametrize("name", list(CHECKS_LABEL))
def test_wrong_label_shape_is_named(name, shape):
    check_map_error(LOSSES[name](3), "label", shape)


@pytest.mark.parametrize("shape", list(BAD_MAPS.values()), ids=list(BAD_MAPS))
@every_loss
def test_wrong_mask_shape_is_named(build, shape):
    check_map_error(build(3), "mask", shape)


@pytest.mark.parametrize(
    "shape",
    [(1, 3, 4, 5), (2, 3, 4, 6), (2, 5, 4, 5), (2, 1, 4, 5)],
    ids=["other-batch", "other-size", "other-classes", "labels"],
)
@pytest.mark.parametrize("name", list(READS_REFERENCE))
def test_a_reference_of_another_shape_is_named(name, shape):
    with pytest.raises(ValueError, match=r"\breference\b") as error:
        call(LOSSES[name](3), make_batch()._replace(reference=torch.zeros(shape)), label=False, mask=False)
    assert str(shape) in str(error.value)
    assert "3, 4, 5)" in str(error.value) or "(batch, 3, *spatial)" in str(error.value)


@pytest.mark.parametrize("build", [MetaSSLLabeledLoss, MetaSSLUnlabeledLoss])
def test_a_threshold_for_another_number_of_classes_is_named(build):
    with pytest.raises(ValueError, match="threshold") as error:
        build(4, threshold=AdaptiveThreshold(2))
    assert "2" in str(error.value)
    assert "4" in str(error.value)
