# SPDX-License-Identifier: Apache-2.0
"""Every overlay of every bundle, with MetaSSL and without: who learns from which term, and what else moves."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from metassl_monai.bundle.locate import bundle_names
from metassl_monai.engines import prepare_streams

BOTH = {"network": {"network"}, "second_network": {"second_network"}}
AUXILIARY = ("noise", "dropout", "most_active")
ACDC = "acdc_cardiac_mri_segmentation"
LA = "la_atrium_mri_segmentation"

# By method: the parts of the method that each pair of each stream trains; a dot goes into a submodule.
LEARNS: dict[str, dict[str, dict[str, set[str]]]] = {
    "supervised": {"labeled": {"network": {"network"}}},
    "full_supervised": {"labeled": {"network": {"network"}}},
    "mean_teacher": {"labeled": {"network": {"network"}}, "unlabeled": {"network": {"network"}}},
    "cps": {"labeled": BOTH, "unlabeled": BOTH},
    "fixmatch": {"labeled": {"weak": {"network"}, "strong": {"network"}}, "unlabeled": {"strong": {"network"}}},
    "rdrop": {stream: {name: {"network"} for name in ("first", "second")} for stream in ("labeled", "unlabeled")},
    "cct": {
        "labeled": {
            "main": {"network.encoder", "network.decoder"},
            **{name: {"network.encoder", f"decoders.{name}"} for name in AUXILIARY},
        },
        "unlabeled": {name: {"network.encoder", f"decoders.{name}"} for name in AUXILIARY},
    },
    "bcp": {stream: {name: {"network"} for name in ("inward", "outward")} for stream in ("labeled", "unlabeled")},
    "alhvr": {
        "labeled": BOTH,
        "unlabeled": BOTH,
        "extra": {f"{kind}_{name}": parts for kind in ("prototypes", "entropy") for name, parts in BOTH.items()},
    },
    "dualnet": {
        "labeled": BOTH,
        "unlabeled": BOTH,
        "extra": {
            "regularization": {"network", "second_network"},
            "uncertainty": {"second_network"},
            "contrast": {"second_network"},
        },
    },
    "cml": {
        stream: {
            **{name: {f"{name}.encoder", f"{name}.decoder"} for name in BOTH},
            "conflict": {f"{name}.encoder" for name in BOTH},
        }
        for stream in ("labeled", "unlabeled")
    },
}
STUDENT = {stream: {"network": {"network"}} for stream in ("labeled", "unlabeled")}
HALVES = {name: {f"{name}.encoder", f"{name}.decoder"} for name in BOTH}
DECODERS = {"network": {"network.encoder", "network.decoder"}, "second_decoder": {"network.encoder", "second_decoder"}}
SCALES = ("scale_2", "scale_4", "scale_8")
ONLY_ACDC: dict[str, dict[str, dict[str, set[str]]]] = {
    "ua_mt": STUDENT,
    "ac_mt": STUDENT,
    "ict": STUDENT,
    "mc_net": {"labeled": DECODERS, "unlabeled": DECODERS},
    "dc_net": {"labeled": DECODERS, "unlabeled": DECODERS, "extra": {"distillation": {"network.encoder"}}},
    "mlrp": {"labeled": DECODERS, "unlabeled": DECODERS},
    "ccvc": {
        "labeled": HALVES,
        "unlabeled": HALVES,
        "extra": {"conflict": {"network.encoder", "second_network.encoder"}},
    },
    "em": {"labeled": {"network": {"network"}}, "extra": {"entropy": {"network"}}},
    "urpc": {
        stream: {
            "scale_1": {"network.encoder", "network.decoder", "network.decoder.head"},
            **{name: {"network.encoder", "network.decoder", f"heads.{name}"} for name in SCALES},
        }
        for stream in ("labeled", "unlabeled")
    },
}
"""The wider family that the papers compare with."""
STUDENTS = {
    f"{prefix}{half}": {name}
    for prefix, name in (("", "network"), ("second_", "second_network"))
    for half in ("inward", "outward")
}
LEARNS.update(ONLY_ACDC)
LEARNS["mcf"] = {
    "labeled": BOTH,
    "unlabeled": BOTH,
    "extra": {f"review_{name}": parts for name, parts in BOTH.items()},
}
LEARNS["sdcl"] = {
    "labeled": STUDENTS,
    "unlabeled": STUDENTS,
    "extra": {f"{kind}_{name}": parts for kind in ("distance", "uniform") for name, parts in BOTH.items()},
}
ONLY_IN = {**dict.fromkeys(ONLY_ACDC, (ACDC,)), "mcf": (LA,), "sdcl": (ACDC, LA)}
"""The bundles that have the overlay of a method, where not all have it."""
PARTS = {
    **dict.fromkeys(("ua_mt", "ac_mt", "ict"), ("network", "teacher")),
    **dict.fromkeys(("mc_net", "dc_net", "mlrp"), ("network.encoder", "network.decoder", "second_decoder")),
    "urpc": ("network.encoder", "network.decoder", "network.decoder.head", *(f"heads.{name}" for name in SCALES)),
    "ccvc": tuple(part for parts in HALVES.values() for part in sorted(parts)),
    "cml": tuple(f"{name}.{half}" for name in BOTH for half in ("encoder", "decoder")),
    "cct": ("network.encoder", "network.decoder", *(f"decoders.{name}" for name in AUXILIARY)),
    "alhvr": ("network", "second_network"),
    "cps": ("network", "second_network"),
    "dualnet": ("network", "second_network"),
    "mean_teacher": ("network", "teacher"),
    "bcp": ("network", "teacher"),
    "mcf": ("network", "second_network"),
    "sdcl": ("network", "second_network", "teacher"),
}
FIXED = {"dualnet": {"method_def::roles": "fixed"}, "ac_mt": {"method_def::limits": [0.0, 0.0]}}
"""Settings without which it would depend on the batch who learns."""
COMPETING = {"mcf": {"unlabeled/network", "unlabeled/second_network"}}
"""Terms of which a batch has but one: the other one trains nothing and its threshold holds."""
TEACHERS = {"mean_teacher", "bcp", "sdcl", "ua_mt", "ac_mt", "ict"}
OVERLAYS = [(b, m) for b, m in itertools.product(bundle_names(), LEARNS) if b in ONLY_IN.get(m, (b,))]
EVERY = [(*overlay, plain) for overlay in OVERLAYS for plain in (False, True)]
SOME = ("abdomenct1k_ct", "brats2019_mri", "digestpath_pathology", "pancreas_ct")
FEW = dict.fromkeys((f"{name}_segmentation" for name in SOME), ("bcp", "cps"))
"""The methods that are trained in a bundle whose training is that of another one but for its data."""
TRAINED = [(bundle, method, plain) for bundle, method, plain in EVERY if method in FEW.get(bundle, LEARNS)]


def expected_terms(method: str, plain: bool) -> dict[str, set[str]]:
    terms = {f"{stream}/{name}": parts for stream, pairs in LEARNS[method].items() for name, parts in pairs.items()}
    if method == "fixmatch" and plain:  # as published: labeled images are seen weakly augmented only
        del terms["labeled/strong"]
    return terms


def sharpen(method: nn.Module) -> None:
    """Make every network sure, so that a threshold of 0.95 lets something through and predictions differ."""
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if "head.weight" in name:
                parameter.mul_(40)


def touched(method: nn.Module, term: torch.Tensor, parts: tuple[str, ...]) -> set[str]:
    for parameter in method.parameters():
        parameter.grad = None
    term.backward(retain_graph=True)
    return {
        part
        for part in parts
        if any(p.grad is not None and bool(p.grad.ne(0).any()) for p in method.get_submodule(part).parameters())
    }


def thresholds(method: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in method.state_dict().items() if key.endswith("threshold.values")}


@pytest.fixture
def training(workflow):
    def build(bundle, method, plain, **overrides):
        built = workflow(bundle, ["train", method, *(["plain"] if plain else [])], **overrides)
        built.initialize()
        return built

    return build


@pytest.mark.parametrize(("bundle", "method", "plain"), EVERY)
def test_each_term_trains_what_it_should_and_nothing_else(bundle, method, plain, training):
    trainer = training(bundle, method, plain, **FIXED.get(method, {})).trainer
    module, parts = trainer.method, PARTS.get(method, ("network",))
    sharpen(module)
    module.train()
    losses, _ = module(prepare_streams(next(iter(trainer.data_loader)), torch.device("cpu")), 10)
    expected, competing = expected_terms(method, plain), COMPETING.get(method, set())
    idle = {name for name in competing if losses[name] == 0}
    assert len(idle) == len(competing) // 2
    expected |= {name: set() for name in idle}
    assert {name: touched(module, term, parts) for name, term in losses.items()} == expected


@pytest.mark.parametrize(("bundle", "method", "plain"), TRAINED)
def test_training_moves_what_it_should(bundle, method, plain, training, tmp_path):
    run = training(bundle, method, plain)
    trainer = run.trainer
    before = {key: value.clone() for key, value in trainer.method.state_dict().items()}
    run.run()
    assert trainer.state.iteration == 2
    after = trainer.method.state_dict()
    for part in PARTS.get(method, ("network",)):
        assert any(not after[key].equal(before[key]) for key in after if key.startswith(part)), part
    states = thresholds(trainer.method)
    assert bool(states) is not plain
    held = {key.split(".partition")[0].replace("_losses.", "/") for key in states if states[key].equal(before[key])}
    competing = COMPETING.get(method, set())
    assert held <= competing
    assert len(held) <= len(competing) // 2
    assert all(torch.isfinite(value) for value in trainer.state.losses.values())
    exported = torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True)
    trainer.unwrapped_method.inference_network.load_state_dict(exported)


@pytest.mark.parametrize(("bundle", "method"), [pair for pair in OVERLAYS if pair[1] in TEACHERS])
def test_teachers_move_by_their_average_only(bundle, method, training, monkeypatch):
    run = training(bundle, method, False, first_stage=[])  # which would start student and teacher anew
    module = run.trainer.method
    monkeypatch.setattr(module, "update", lambda step: None)
    before = {key: value.clone() for key, value in module.teacher.named_parameters()}
    student = {key: value.clone() for key, value in module.network.named_parameters()}
    run.run()
    assert all(value.equal(before[key]) for key, value in module.teacher.named_parameters())
    assert any(not value.equal(student[key]) for key, value in module.network.named_parameters())
