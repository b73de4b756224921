# SPDX-License-Identifier: Apache-2.0
"""Every overlay of every bundle, with MetaSSL and without: who learns from which term, and what else moves."""

from __future__ import annotations

import itertools

import pytest
import torch
from method_rows import METHODS
from torch import nn

from metassl_monai.bundle.locate import bundle_names
from metassl_monai.engines import prepare_streams
from metassl_monai.recipes import data_sets, methods, part

OVERLAYS = [(b, m) for b, m in itertools.product(bundle_names(), METHODS) if b in (METHODS[m].bundles or (b,))]
EVERY = [(*overlay, plain) for overlay in OVERLAYS for plain in (False, True)]
SOME = ("abdomenct1k_ct", "brats2019_mri", "digestpath_pathology", "pancreas_ct")
FEW = dict.fromkeys((f"{name}_segmentation" for name in SOME), ("bcp", "cps"))
"""The methods that are trained in a bundle whose training is that of another one but for its data."""
TRAINED = [(bundle, method, plain) for bundle, method, plain in EVERY if method in FEW.get(bundle, METHODS)]


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


@pytest.mark.parametrize("data_set", data_sets())
def test_every_method_of_a_bundle_has_its_row(data_set):
    bundle = part(f"data_sets/{data_set}")["bundle"]
    assert {method for name, method in OVERLAYS if name == bundle} == set(methods(data_set))


@pytest.mark.parametrize(("bundle", "method", "plain"), EVERY)
def test_each_term_trains_what_it_should_and_nothing_else(bundle, method, plain, training):
    row = METHODS[method]
    trainer = training(bundle, method, plain, **row.settings).trainer
    module = trainer.method
    sharpen(module)
    module.train()
    losses, _ = module(prepare_streams(next(iter(trainer.data_loader)), torch.device("cpu")), 10)
    idle = {name for name in row.competing if losses[name] == 0}
    assert len(idle) == len(row.competing) // 2
    expected = row.terms(plain) | {name: set() for name in idle}
    assert {name: touched(module, term, row.parts) for name, term in losses.items()} == expected


@pytest.mark.parametrize(("bundle", "method", "plain"), TRAINED)
def test_training_moves_what_it_should(bundle, method, plain, training, tmp_path):
    run = training(bundle, method, plain)
    trainer = run.trainer
    before = {key: value.clone() for key, value in trainer.method.state_dict().items()}
    run.run()
    assert trainer.state.iteration == 2
    after = trainer.method.state_dict()
    for name in METHODS[method].parts:
        assert any(not after[key].equal(before[key]) for key in after if key.startswith(name)), name
    states = thresholds(trainer.method)
    assert bool(states) is not plain
    held = {key.split(".partition")[0].replace("_losses.", "/") for key in states if states[key].equal(before[key])}
    competing = METHODS[method].competing
    assert held <= competing
    assert len(held) <= len(competing) // 2
    assert all(torch.isfinite(value) for value in trainer.state.losses.values())
    drawn = list((tmp_path / "out" / "pictures").glob("unlabeled_0*.png"))
    assert bool(drawn) == bool(trainer.unwrapped_method.names["unlabeled"])
    exported = torch.load(tmp_path / "out" / "models" / "model.pt", weights_only=True)
    trainer.unwrapped_method.inference_network.load_state_dict(exported)


@pytest.mark.parametrize(("bundle", "method"), [pair for pair in OVERLAYS if METHODS[pair[1]].teacher])
def test_teachers_move_by_their_average_only(bundle, method, training, monkeypatch):
    run = training(bundle, method, False, first_stage=[])  # which would start student and teacher anew
    module = run.trainer.method
    monkeypatch.setattr(module, "update", lambda step: None)
    before = {key: value.clone() for key, value in module.teacher.named_parameters()}
    student = {key: value.clone() for key, value in module.network.named_parameters()}
    run.run()
    assert all(value.equal(before[key]) for key, value in module.teacher.named_parameters())
    assert any(not value.equal(student[key]) for key, value in module.network.named_parameters())
