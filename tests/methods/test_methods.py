# SPDX-License-Identifier: Apache-2.0
"""What holds for every method, whatever its references and its losses: rows are in ``conftest.py``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain import touched
from torch import Tensor, nn

from metassl_monai.losses import AdaptiveThreshold, MetaSSLLabeledLoss, MetaSSLUnlabeledLoss
from metassl_monai.networks import MeanOfTwo

Batch = dict[str, dict[str, Tensor]]


def test_each_term_trains_the_networks_it_should_and_no_others(
    row: Any, losses: str, make_method: Callable, batch: Batch
) -> None:
    method = make_method(row, losses)
    terms, _ = method(batch, 0)
    parts = row.learning | set(row.teachers)
    assert {name: touched(method, term, parts) for name, term in terms.items()} == row.learns


def test_each_term_reaches_the_images_it_should_and_no_others(
    row: Any, losses: str, make_method: Callable, batch: Batch
) -> None:
    """Without batch norm, which mixes the images of a batch: a reference passes nothing on."""
    method = make_method(row, losses, batch_norm=False)
    images = {
        f"{stream}/{key}": value.requires_grad_()
        for stream, data in batch.items()
        for key, value in data.items()
        if key != "label"
    }
    terms, _ = method(batch, 0)
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, list(images.values()), retain_graph=True, allow_unused=True)
        reached = {key for key, g in zip(images, gradients, strict=True) if g is not None and bool(g.ne(0).any())}
        assert reached == row.reads[name], name


def test_total_reaches_every_parameter_of_the_learning_networks(
    row: Any, losses: str, make_method: Callable, batch: Batch
) -> None:
    method = make_method(row, losses)
    terms, _ = method(batch, 0)
    sum(terms.values()).backward()
    for name, parameter in method.named_parameters():
        if any(name.startswith(f"{part}.") for part in row.learning):
            assert parameter.grad is not None, name
            assert parameter.grad.ne(0).any(), name
        else:
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
    assert {part.split(".")[0] for part in row.learning} | set(row.teachers) == set(row.networks)


def test_pair_names_are_unique_in_each_stream_and_those_of_the_class(
    row: Any, make_method: Callable, batch: Batch
) -> None:
    pairs = make_method(row).pairs(batch, 0).pairs
    for stream, labeled in (("labeled", True), ("unlabeled", False)):
        names = [pair.name for pair in pairs if (pair.target is not None) == labeled]
        assert len(set(names)) == len(names)
        assert {f"{stream}/{name}" for name in names} == {term for term in row.learns if term.startswith(f"{stream}/")}
        assert set(names) <= set(row.method.names[stream])


def test_terms_are_named_by_stream_and_pair(row: Any, losses: str, make_method: Callable, batch: Batch) -> None:
    method = make_method(row, losses)
    terms, _ = method(batch, 0)
    expected = {f"{stream}/{name}" for stream in ("labeled", "unlabeled") for name in row.method.names[stream]}
    assert expected == {name for name, _ in method.named_losses()}
    assert set(terms) == set(row.learns) == expected - row.unused
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())


def test_networks_see_the_images_of_the_row_and_the_prediction_is_that_of_the_passes_of_the_row(
    row: Any, make_method: Callable, batch: Batch, play: Callable, images_seen: Callable
) -> None:
    """Which images share a pass decides on the statistics of batch norm."""
    method = make_method(row, **row.without_noise)
    duplicate = copy.deepcopy(method.get_submodule(row.predicts))
    seen = images_seen(method, tuple(row.sees))
    _, prediction = play(method, batch)
    mask = method.paste.mask if hasattr(method, "paste") else None
    for name, images in row.sees.items():
        expected = images(batch, mask)
        assert len(seen[name]) == len(expected), name
        assert all(one.equal(other) for one, other in zip(seen[name], expected, strict=True)), name
    torch.manual_seed(3)  # for dropout
    passes = row.sees[row.predicts](batch, mask)
    logits = torch.cat([duplicate(passes[i]) for i in row.passes])[: len(batch["labeled"]["label"])]
    torch.testing.assert_close(prediction, logits, rtol=0, atol=0)


def test_teachers_see_without_gradient(teacher_row: Any, make_method: Callable, batch: Batch) -> None:
    method = make_method(teacher_row)
    grad_modes = []
    for name in teacher_row.teachers:
        getattr(method, name).register_forward_hook(lambda *_: grad_modes.append(torch.is_grad_enabled()))
    method(batch, 0)
    assert grad_modes == [False] * sum(len(teacher_row.sees[name](batch)) for name in teacher_row.teachers)


def test_steps_seeded_alike_are_equal_and_others_differ_where_the_method_is_random(
    row: Any, losses: str, make_method: Callable, batch: Batch, play: Callable
) -> None:
    """So that a resumed run repeats the uninterrupted one, whatever was drawn before."""
    method = make_method(row, losses)
    same, other = copy.deepcopy(method), copy.deepcopy(method)
    play(same, batch, seed=7)
    same.load_state_dict(method.state_dict())
    (terms, _), (same_terms, _), (other_terms, _) = (
        play(m, batch, seed=seed) for m, seed in ((method, 3), (same, 3), (other, 4))
    )
    assert all(term.equal(same_terms[name]) for name, term in terms.items())
    assert any(not term.equal(other_terms[name]) for name, term in terms.items()) == row.random


def test_state_dict_holds_networks_and_losses_alone_and_a_step_adds_nothing(
    row: Any, make_method: Callable, batch: Batch
) -> None:
    method = make_method(row)
    keys = list(method.state_dict())
    method(batch, 0)
    method.update(0)
    assert list(method.state_dict()) == keys
    assert {key.split(".")[0] for key in keys} <= {*row.networks, "labeled_losses", "unlabeled_losses"}


def test_every_method_runs_in_three_dimensions(
    row: Any, losses: str, make_method: Callable, make_batch: Callable
) -> None:
    method = make_method(row, losses, dims=3)
    batch = make_batch(spatial=(6, 8, 4))
    terms, prediction = method(batch, 0)
    assert prediction.shape == (2, 3, 6, 8, 4)
    assert set(terms) == set(row.learns)
    assert all(term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    for name, parameter in method.named_parameters():
        assert (parameter.grad is not None and parameter.grad.isfinite().all()) == parameter.requires_grad, name
    method.update(0)


def test_labels_of_unlabeled_images_are_never_read(row: Any, make_method: Callable, batch: Batch) -> None:
    assert "label" not in batch["unlabeled"]
    terms, _ = make_method(row)(batch, 0)
    assert terms


def thresholds(method: nn.Module) -> dict[str, Tensor]:
    state = method.state_dict()
    return {name: value.clone() for name, value in state.items() if name.endswith("threshold.values")}


def test_each_name_and_stream_has_its_own_threshold_in_the_state_dict(row: Any, make_method: Callable) -> None:
    method = make_method(row)
    expected = {
        f"{stream}_losses.{name}.partition.threshold.values"
        for stream in ("labeled", "unlabeled")
        for name in row.method.names[stream]
    }
    assert set(thresholds(method)) == expected
    memory = [buffer.data_ptr() for name, buffer in method.named_buffers() if name.endswith("threshold.values")]
    assert len(set(memory)) == len(expected)


def test_every_threshold_moves_in_training_mode_and_none_in_evaluation_mode(
    row: Any, make_method: Callable, batch: Batch
) -> None:
    method = make_method(row)
    before = thresholds(method)
    method.eval()(batch, 0)
    assert all(value.equal(before[name]) for name, value in thresholds(method).items())
    method.train()(batch, 0)
    moved = {name for name, value in thresholds(method).items() if value.ne(before[name]).any()}
    unused = {"{}_losses.{}.partition.threshold.values".format(*name.split("/")) for name in row.unused}
    assert moved == set(before) - unused


def test_thresholds_of_the_given_losses_stay_where_they_are(
    row: Any, make_method: Callable, make_losses: Callable, batch: Batch
) -> None:
    given = make_losses(row, "metassl")
    make_method(row, given=given)(batch, 0)
    for loss in given:
        assert loss.partition.threshold.values.tolist() == [0.5] * 3


def test_threshold_shared_by_the_two_losses_stays_shared_within_a_name_and_not_beyond(
    row: Any, make_method: Callable, batch: Batch
) -> None:
    shared = AdaptiveThreshold(3)
    method = make_method(
        row, given=(MetaSSLLabeledLoss(3, threshold=shared), MetaSSLUnlabeledLoss(3, threshold=shared))
    )
    both = set(row.method.names["labeled"]) & set(row.method.names["unlabeled"])
    owners = {name: method.labeled_losses[name].partition.threshold for name in row.method.names["labeled"]}
    for name in both:
        assert method.unlabeled_losses[name].partition.threshold is owners[name]
    assert len({id(threshold) for threshold in (*owners.values(), shared)}) == len(owners) + 1
    method(batch, 0)
    assert shared.values.tolist() == [0.5] * 3


def scaled(kind: type[nn.Module], factor: float) -> nn.Module:
    return kind(3, scale=factor)


def test_losses_may_be_given_by_pair_name(row: Any, make_method: Callable, batch: Batch, play: Callable) -> None:
    names = list(dict.fromkeys((*row.method.names["labeled"], *row.method.names["unlabeled"])))
    factors = {name: 2.0 + number for number, name in enumerate(names)}
    base = make_method(row, given=(MetaSSLLabeledLoss(3), MetaSSLUnlabeledLoss(3)))
    method = make_method(
        row,
        given=(
            {name: scaled(MetaSSLLabeledLoss, factors[name]) for name in names},
            {name: scaled(MetaSSLUnlabeledLoss, 10 * factors[name]) for name in names},
        ),
    )
    method.load_state_dict(base.state_dict())
    expected, _ = play(base, batch)
    terms, _ = play(method, batch)
    for name, term in terms.items():
        stream, pair = name.split("/")
        factor = factors[pair] * (10 if stream == "unlabeled" else 1)
        torch.testing.assert_close(term, factor * expected[name])


def test_losses_by_name_that_lack_a_pair_are_refused_with_its_name(row: Any, make_method: Callable) -> None:
    name = row.method.names["labeled"][-1]
    by_name = {other: MetaSSLLabeledLoss(3) for other in row.method.names["labeled"] if other != name}
    with pytest.raises((ValueError, KeyError), match=name):
        make_method(row, given=(by_name, MetaSSLUnlabeledLoss(3)))


def test_ramp_multiplies_the_unlabeled_terms_only(
    row: Any, losses: str, make_method: Callable, batch: Batch, shake: Callable, play: Callable
) -> None:
    method = make_method(row, losses, ramp=lambda step: 1.0)
    for name in row.teachers:
        shake(getattr(method, name))
    ramped = copy.deepcopy(method)
    ramped.ramp = lambda step: 0.25
    full, _ = play(method, batch)
    part, _ = play(ramped, batch)
    for name, term in full.items():
        factor = 0.25 if name.startswith("unlabeled/") else 1.0
        torch.testing.assert_close(part[name], factor * term, rtol=1e-6, atol=0)
        assert term > 0


def test_ramp_is_asked_for_the_step(row: Any, make_method: Callable, batch: Batch) -> None:
    steps = []
    method = make_method(row, ramp=lambda step: steps.append(step) or 0.1)
    method(batch, 0)
    method(batch, 17)
    assert sorted(set(steps)) == [0, 17]


def test_state_dict_round_trip(
    row: Any, losses: str, make_method: Callable, batch: Batch, shake: Callable, snapshot: Callable, play: Callable
) -> None:
    method, other = (make_method(row, losses) for _ in range(2))
    method(batch, 0)
    for name in row.networks:
        shake(getattr(method, name))
    state = snapshot(method)
    assert any(not value.equal(other.state_dict()[name]) for name, value in state.items())
    other.load_state_dict(state)
    assert all(value.equal(other.state_dict()[name]) for name, value in state.items())
    (terms, prediction), (other_terms, other_prediction) = play(method, batch, 3), play(other, batch, 3)
    assert prediction.equal(other_prediction)
    assert all(term.equal(other_terms[name]) for name, term in terms.items())


def test_deepcopy_is_equal_and_independent(
    row: Any, losses: str, make_method: Callable, batch: Batch, snapshot: Callable
) -> None:
    method = make_method(row, losses)
    method(batch, 0)
    duplicate = copy.deepcopy(method)
    assert [p.requires_grad for p in duplicate.parameters()] == [p.requires_grad for p in method.parameters()]
    before = snapshot(method)
    optimizer = torch.optim.SGD([p for p in duplicate.parameters() if p.requires_grad], lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        sum(duplicate(batch, step)[0].values()).backward()
        optimizer.step()
        duplicate.update(step)
    after = method.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
    moved = duplicate.state_dict()
    for name in row.networks:
        assert any(not moved[key].equal(after[key]) for key in after if key.startswith(f"{name}."))


def test_inference_network_is_made_of_the_networks_given(row: Any, make_method: Callable) -> None:
    method = make_method(row)
    network = method.inference_network
    if row.mean_of_two:
        assert isinstance(network, MeanOfTwo)
        assert network.first is method.network
        assert network.second is method.second_network
    else:
        assert network is method.network


def test_networks_follow_the_mode_of_the_method(row: Any, make_method: Callable) -> None:
    method = make_method(row)
    for mode in (True, False):
        method.train(mode)
        assert all(getattr(method, name).training == mode for name in row.networks)


def test_teacher_starts_as_its_student_and_never_learns(teacher_row: Any, make_method: Callable) -> None:
    method = make_method(teacher_row)
    for name in teacher_row.teachers:
        teacher = getattr(method, name)
        for new, old in zip(teacher.parameters(), method.network.parameters(), strict=True):
            assert new.equal(old)
            assert new.data_ptr() != old.data_ptr()
            assert not new.requires_grad
            assert old.requires_grad


def test_teacher_moves_in_update_alone(teacher_row: Any, make_method: Callable, batch: Batch) -> None:
    method = make_method(teacher_row)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    teachers = [p for name in teacher_row.teachers for p in getattr(method, name).parameters()]
    before = [p.clone() for p in teachers]
    sum(method(batch, 0)[0].values()).backward()
    optimizer.step()
    assert all(new.equal(old) for new, old in zip(teachers, before, strict=True))
    method.update(0)
    assert any(not new.equal(old) for new, old in zip(teachers, before, strict=True))


@pytest.mark.parametrize("decay", [0.99, 0.7])
def test_teacher_is_the_slow_moving_average(
    teacher_row: Any, decay: float, make_method: Callable, shake: Callable
) -> None:
    method = make_method(teacher_row, decay=decay).double()
    for name in teacher_row.teachers:
        shake(getattr(method, name))
        expected = {key: value.tolist() for key, value in getattr(method, name).named_parameters()}
        for step in range(6):
            shake(method.network)
            method.update(step)
            keep = teacher_row.keep(step, decay)
            student = dict(method.network.named_parameters())
            for key, parameter in getattr(method, name).named_parameters():
                old = torch.tensor(expected[key], dtype=torch.float64)
                moved = torch.empty_like(old)
                for i in range(old.numel()):
                    moved.view(-1)[i] = keep * old.view(-1)[i] + (1 - keep) * student[key].detach().reshape(-1)[i]
                expected[key] = moved.tolist()
                torch.testing.assert_close(parameter.detach(), moved, rtol=1e-12, atol=1e-12)


def test_update_copies_the_buffers_of_the_student(teacher_row: Any, make_method: Callable, shake: Callable) -> None:
    method = make_method(teacher_row)
    for step in range(6):
        shake(method.network)
        method.update(step)
        for name in teacher_row.teachers:
            buffers = dict(getattr(method, name).named_buffers())
            assert {f"encoder.norm.{key}" for key in ("running_mean", "running_var")} <= set(buffers)
            for key, value in method.network.named_buffers():
                assert buffers[key].equal(value)
                assert buffers[key].data_ptr() != value.data_ptr()


def test_update_leaves_all_else_alone(
    row: Any, make_method: Callable, batch: Batch, shake: Callable, snapshot: Callable
) -> None:
    method = make_method(row)
    method(batch, 0)
    shake(method)
    before = snapshot(method)
    method.update(2)
    changed = {key.split(".")[0] for key, value in method.state_dict().items() if not value.equal(before[key])}
    assert changed == set(row.teachers)
