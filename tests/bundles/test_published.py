# SPDX-License-Identifier: Apache-2.0
"""What the configs take from the published training: ramps, own losses, initial weights, first stages."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from metassl_monai.bundle.locate import bundle_names, bundle_path, config_files
from metassl_monai.losses import CrossEntropyDiceLoss, CrossEntropyLinearDiceLoss, KLDivergenceLoss
from metassl_monai.methods import GaussianRamp

from .conftest import BRATS, LA, PANCREAS

VOLUMES = (LA, BRATS, PANCREAS)
"""The bundles of V-Nets."""
FLAT = ("bcp", "cml", "sdcl", "dualnet")
"""The methods whose unlabeled terms are not ramped."""
NO_METHOD = {"evaluate", "hidden_labels", "inference", "mean_of_two", "metadata", "monitor", "multi_gpu_train", "plain"}
NO_METHOD |= {"best", "ref_dualnet"}  # which follow bcp and dualnet


def config(bundle: str, *names: str, **overrides: object) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(file) for file in config_files(bundle_path(bundle), ["train", *names])])
    for key, value in overrides.items():
        parser[key] = value
    return parser


def methods_of(bundle: str) -> list[str]:
    """The overlays of a bundle that define a method."""
    files = (bundle_path(bundle) / "configs").glob("*.json")
    return sorted(file.stem for file in files if file.stem not in NO_METHOD and "method_def" in file.read_text())


def ramped() -> list[tuple[str, str]]:
    pairs = [(bundle, method) for bundle in bundle_names() for method in methods_of(bundle)]
    return [(bundle, method) for bundle, method in pairs if method not in (*FLAT, "train")]


@pytest.mark.parametrize(("bundle", "method"), ramped())
def test_every_ramp_takes_the_published_30000_iterations_or_all_of_a_shorter_run(bundle, method):
    # the release of ALHVR ramps over 30,000 of 15,000 iterations in 3D
    doubled = 2 if method == "alhvr" and bundle in (LA, BRATS) else 1
    for iterations, expected in ((30_000, 30_000), (600, 600), (100_000, 30_000)):
        ramp = config(bundle, method, iterations=iterations).get_parsed_content("ramp")
        assert isinstance(ramp, GaussianRamp)
        assert ramp.iterations == (expected if doubled == 1 else 2 * iterations)
    assert config(bundle, method, iterations=600, ramp_iterations=7).get_parsed_content("ramp").iterations == 7


@pytest.mark.parametrize("bundle", bundle_names())
def test_the_ramp_of_contrast_in_dual_networks_has_the_same_length(bundle):
    name = "method_def::contrastive_ramp"
    assert config(bundle, "dualnet", iterations=600).get_parsed_content(name).iterations == 600
    assert config(bundle, "dualnet", ramp_iterations=7).get_parsed_content(name).iterations == 7


@pytest.mark.parametrize("bundle", bundle_names())
def test_plain_mean_teacher_starts_late_in_2d_only(bundle):
    """The benchmark's 2D script waits for 1,000 of 30,000 iterations, its 3D script and MetaSSL's scripts do not."""
    for names, expected in ((["mean_teacher", "plain"], 1000), (["mean_teacher"], 0)):
        ramp = config(bundle, *names, iterations=30_000, preset="plain" if len(names) > 1 else "paper")
        start = ramp.get_parsed_content("ramp").start
        assert start == (0 if bundle in VOLUMES else expected)
    short = config(bundle, "mean_teacher", "plain", iterations=600).get_parsed_content("ramp")
    assert short(600) == 0.1
    assert short.start == (0 if bundle in VOLUMES else 20)


@pytest.mark.parametrize("bundle", bundle_names())
def test_plain_r_drop_weighs_the_mean_over_the_classes_with_four(bundle):
    parser = config(bundle, "rdrop", "plain", iterations=600)
    classes = parser.get_parsed_content("num_classes")
    p, q = (torch.randn(2, classes, 5, 5, generator=torch.Generator().manual_seed(i)).double() for i in range(2))
    first, second = p.softmax(1), q.softmax(1)
    benchmark = 4 * ((first * (first / second).log()).mean() + (second * (second / first).log()).mean()) / 2
    ramp, loss = parser.get_parsed_content("ramp"), KLDivergenceLoss()
    assert ramp(600) * (loss(p, q) + loss(q, p)) == pytest.approx(benchmark.item())
    assert config(bundle, "rdrop", preset="paper").get_parsed_content("ramp").maximum == 0.1


LINEAR = {(LA, method) for method in ("train", "bcp", "sdcl", "cml")} | {
    (bundle, method) for bundle in bundle_names() for method in ("cml",) + (("bcp",) if bundle in VOLUMES else ())
}


@pytest.mark.parametrize("bundle", bundle_names())
def test_linear_dice_is_of_copy_paste_in_3d_and_of_cml_and_squared_dice_of_all_others(bundle):
    for method in methods_of(bundle):
        parser = config(bundle, *([] if method == "train" else [method]))
        losses = [parser.get_parsed_content(key) for key in ("own_labeled_loss", "own_unlabeled_loss")]
        kind = CrossEntropyLinearDiceLoss if (bundle, method) in LINEAR else CrossEntropyDiceLoss
        assert type(losses[0]) is kind, method
        if hasattr(losses[1], "loss") and "supervised" not in method:  # which has no unlabeled term
            assert type(losses[1].loss) is kind, method


@pytest.mark.parametrize("bundle", VOLUMES)
def test_the_first_stage_of_copy_paste_in_3d_judges_mixtures_as_a_whole_by_linear_dice(bundle):
    parser = config(bundle, "bcp", features=[2, 2, 2, 2, 2])
    stage = parser.get_parsed_content("pretrain::method_def")
    assert stage.apart is False
    assert isinstance(stage.labeled_losses["own"], CrossEntropyLinearDiceLoss)


def spreads(network: nn.Module) -> float:
    """Mean standard deviation of a convolution's weights in units of its fan-in: 0.58 by default, 1.41 by Kaiming."""
    weights = [part.weight for part in network.modules() if isinstance(part, nn.Conv3d | nn.ConvTranspose3d)]
    each = [w.std() * (w.shape[1] * w[0, 0].numel()) ** 0.5 for w in weights if w.numel() > 500]
    return float(torch.stack(each).mean())


@pytest.mark.parametrize(
    ("bundle", "method"),
    [(bundle, method) for bundle in VOLUMES for method in methods_of(bundle)],
)
def test_v_nets_start_from_kaiming_weights_in_mcf_and_dual_networks_alone(bundle, method):
    parser = config(bundle, *([] if method == "train" else [method]), features=[4, 8, 8, 8, 8])
    expected = 2**0.5 if method in ("mcf", "dualnet") else 3**-0.5
    for name in ("network_def", "second_network_def"):
        assert spreads(parser.get_parsed_content(name)) == pytest.approx(expected, rel=0.1), name
