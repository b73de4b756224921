# SPDX-License-Identifier: Apache-2.0
"""What holds for every method, whatever its references and its losses: rows are in ``conftest.py``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metassl_monai.losses import AdaptiveThreshold, MetaSSLLabeledLoss, MetaSSLUnlabeledLoss

Batch = dict[str, dict[str, Tensor]]


def networks_of(row: Any) -> tuple[str, ...]:
    return ("network", *row.further_networks, *row.teachers)


def touched(method: nn.Module, term: Tensor, names: tuple[str, ...]) -> set[str]:
    """Children that a term gives a gradient other than zero."""
    method.zero_grad(set_to_none=True)
    term.backward(retain_graph=True)
    return {
        name
        for name in names
        if any(p.grad is not None and bool(p.grad.ne(0).any()) for p in getattr(method, name).parameters())
    }


def test_each_term_trains_the_networks_it_should_and_no_others(
    row: Any, losses: str, make_method: Callable, batch: Batch
) -> None:
    method = make_method(row, losses)
    terms, _ = method(batch, 0)
    assert {name: touched(method, term, networks_of(row)) for name, term in terms.items()} == row.learns


def test_total_reaches_every_parameter_of_the_learning_networks(
    row: Any, losses: str, make_method: Callable, batch: Batch
) -> None:
    method = make_method(row, losses)
    terms, _ = method(batch, 0)
    sum(terms.values()).backward()
    learning = {name for names in row.learns.values() for name in names}
    for name, parameter in method.named_parameters():
        if name.split(".")[0] in learning:
            assert parameter.grad is not None, name
            assert parameter.grad.ne(0).any(), name
        else:
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
    assert learning | set(row.teachers) == set(networks_of(row))


def test_pair_names_are_unique_in_each_stream_and_those_of_the_class(
    row: Any, make_method: Callable, batch: Batch
) -> None:
    pairs = make_method(row).pairs(batch, 0).pairs
    for stream, labeled in (("labeled", True), ("unlabeled", False)):
        names = [pair.name for pair in pairs if (pair.target is not None) == labeled]
        assert len(set(names)) == len(names)
        assert set(names) == set(row.method.names[stream])


def test_terms_are_named_by_stream_and_pair(row: Any, losses: str, make_method: Callable, batch: Batch) -> None:
    method = make_method(row, losses)
    terms, _ = method(batch, 0)
    expected = {f"{stream}/{name}" for stream in ("labeled", "unlabeled") for name in row.method.names[stream]}
    assert set(terms) == expected == set(row.learns) == {name for name, _ in method.named_losses()}
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())


def test_prediction_is_the_logits_of_the_labeled_images(row: Any, make_method: Callable, batch: Batch) -> None:
    method = make_method(row)
    images = batch["labeled"]["image"]
    labeled = len(images)
    if row.sees_unlabeled:
        images = torch.cat([images, batch["unlabeled"]["image"]])
    expected = copy.deepcopy(method.network)(images)[:labeled]
    _, prediction = method(batch, 0)
    torch.testing.assert_close(prediction, expected, rtol=0, atol=0)


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
    assert all(value.ne(before[name]).any() for name, value in thresholds(method).items())


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


def test_losses_may_be_given_by_pair_name(row: Any, make_method: Callable, batch: Batch) -> None:
    names = list(dict.fromkeys((*row.method.names["labeled"], *row.method.names["unlabeled"])))
    factors = {name: 2.0 + number for number, name in enumerate(names)}
    base = make_method(row, given=(MetaSSLLabeledLoss(3), MetaSSLUnlabeledLoss(3)), **row.without_noise)
    method = make_method(
        row,
        given=(
            {name: scaled(MetaSSLLabeledLoss, factors[name]) for name in names},
            {name: scaled(MetaSSLUnlabeledLoss, 10 * factors[name]) for name in names},
        ),
        **row.without_noise,
    )
    method.load_state_dict(base.state_dict())
    expected, _ = base(batch, 0)
    terms, _ = method(batch, 0)
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
    row: Any, losses: str, make_method: Callable, batch: Batch, shake: Callable
) -> None:
    method = make_method(row, losses, ramp=lambda step: 1.0, **row.without_noise)
    for name in row.teachers:
        shake(getattr(method, name))
    ramped = copy.deepcopy(method)
    ramped.ramp = lambda step: 0.25
    full, _ = method(batch, 0)
    part, _ = ramped(batch, 0)
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
    row: Any, losses: str, make_method: Callable, batch: Batch, shake: Callable, snapshot: Callable
) -> None:
    method, other = (make_method(row, losses, **row.without_noise) for _ in range(2))
    method(batch, 0)
    for name in networks_of(row):
        shake(getattr(method, name))
    state = snapshot(method)
    assert any(not value.equal(other.state_dict()[name]) for name, value in state.items())
    other.load_state_dict(state)
    assert all(value.equal(other.state_dict()[name]) for name, value in state.items())
    (terms, prediction), (other_terms, other_prediction) = method(batch, 3), other(batch, 3)
    assert prediction.equal(other_prediction)
    assert all(term.equal(other_terms[name]) for name, term in terms.items())


def test_deepcopy_is_equal_and_independent(
    row: Any, losses: str, make_method: Callable, batch: Batch, snapshot: Callable
) -> None:
    method = make_method(row, losses, **row.without_noise)
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
    for name in networks_of(row):
        assert any(not moved[key].equal(after[key]) for key in after if key.startswith(f"{name}."))


def test_inference_network_is_the_network_given(row: Any, make_method: Callable) -> None:
    method = make_method(row)
    assert method.inference_network is method.network


def test_networks_follow_the_mode_of_the_method(row: Any, make_method: Callable) -> None:
    method = make_method(row)
    for mode in (True, False):
        method.train(mode)
        assert all(getattr(method, name).training == mode for name in networks_of(row))


def test_batch_norm_statistics_of_a_step_come_from_the_images_of_the_row(
    row: Any, make_method: Callable, batch: Batch
) -> None:
    method = make_method(row)
    seen: list[Tensor] = []
    method.network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    method(batch, 0)
    streams = [batch["labeled"]["image"], *([batch["unlabeled"]["image"]] if row.sees_unlabeled else [])]
    assert len(seen) == 1
    assert seen[0].equal(torch.cat(streams))


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
    """``a = min(1 - 1 / (t + 1), decay)``; with 0.7 the decay is reached at step 3."""
    method = make_method(teacher_row, decay=decay).double()
    for name in teacher_row.teachers:
        shake(getattr(method, name))  # step 0 must copy the student whatever the teacher was
        expected = {key: value.tolist() for key, value in getattr(method, name).named_parameters()}
        for step in range(6):
            shake(method.network)
            method.update(step)
            keep = min(1 - 1 / (step + 1), decay)
            student = dict(method.network.named_parameters())
            for key, parameter in getattr(method, name).named_parameters():
                old = torch.tensor(expected[key], dtype=torch.float64)
                moved = torch.empty_like(old)
                for i in range(old.numel()):
                    moved.view(-1)[i] = keep * old.view(-1)[i] + (1 - keep) * student[key].detach().reshape(-1)[i]
                expected[key] = moved.tolist()
                torch.testing.assert_close(parameter.detach(), moved, rtol=1e-12, atol=1e-12)
            if step == 0:
                assert all(new.equal(student[key]) for key, new in getattr(method, name).named_parameters())


def test_update_copies_the_buffers_of_the_student(teacher_row: Any, make_method: Callable, shake: Callable) -> None:
    method = make_method(teacher_row)
    for step in range(6):
        shake(method.network)
        method.update(step)
        for name in teacher_row.teachers:
            buffers = dict(getattr(method, name).named_buffers())
            assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= set(buffers)
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
