# SPDX-License-Identifier: Apache-2.0
"""A training that diverges ends with the iteration and the term, before anything of that epoch is used."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn

from metassl_monai.engines import FiniteLosses
from metassl_monai.finite import NotFiniteError

NAN, INF = float("nan"), float("inf")
FP16 = {"amp": True, "amp_kwargs": {"dtype": torch.float16}}


class Scripted(nn.Module):
    """A loss whose factor is given call by call."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = iter(factors)

    def forward(self, input: Tensor, *others: object, **keywords: object) -> Tensor:
        return input.square().mean() * next(self.factors)

    def __deepcopy__(self, memo: dict) -> Scripted:
        return self


def seen(*steps: dict[str, float], tolerant: bool = False) -> FiniteLosses:
    losses = FiniteLosses(tolerant)
    for iteration, step in enumerate(steps, start=4):
        losses.see({name: torch.tensor(value) for name, value in step.items()}, iteration)
    return losses


def test_the_first_iteration_and_its_term_are_named() -> None:
    losses = seen({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": INF}, {"a": NAN, "b": NAN})
    with pytest.raises(NotFiniteError, match="iteration 5: the loss term b "):
        losses.check()


def test_terms_may_come_and_go() -> None:
    with pytest.raises(NotFiniteError, match="iteration 5: the loss term late "):
        seen({"a": 1.0}, {"a": 1.0, "late": NAN}, {"a": 1.0}).check()


def test_what_was_seen_is_forgotten_after_a_check() -> None:
    losses = seen({"a": NAN}, {"a": 1.0}, tolerant=True)
    losses.check()
    losses.see({"a": torch.tensor(1.0)}, 6)
    losses.check()


def test_a_scaler_may_skip_steps_but_not_a_whole_epoch() -> None:
    seen({"a": NAN}, {"a": 1.0}, tolerant=True).check()
    with pytest.raises(NotFiniteError, match="iteration 4: the loss term a "):
        seen({"a": NAN}, {"a": INF}, tolerant=True).check()


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_loss_that_is_not_finite_ends_the_training_before_its_step(
    bad: float, make_method: Callable, make_trainer: Callable
) -> None:
    method = make_method("supervised", losses=(Scripted(1.0, 1.0, bad), Scripted()))
    trainer = make_trainer(method, max_epochs=2)
    states: list[dict] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: states.append(copy.deepcopy(method.state_dict())))
    with pytest.raises(NotFiniteError, match=r"iteration 3: the loss term labeled/\w+ is not finite"):
        trainer.run()
    assert len(states) == 2
    assert all(value.equal(states[-1][name]) for name, value in method.named_parameters())


def test_where_no_step_may_wait_the_epoch_ends_first(make_method: Callable, make_trainer: Callable) -> None:
    method = make_method("supervised", losses=(Scripted(1.0, NAN, 1.0), Scripted()))
    trainer = make_trainer(method)
    trainer.waits_anyway = False
    used: list[str] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: used.append("iteration"))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: used.append("epoch"))
    with pytest.raises(NotFiniteError, match="iteration 2: the loss term labeled"):
        trainer.run()
    assert used == ["iteration"] * 2


@pytest.mark.parametrize("name", ["first.weight", "norm.running_var"])
def test_weights_and_statistics_are_looked_at_before_the_epoch_is_used(
    name: str, make_method: Callable, make_trainer: Callable
) -> None:
    """Running statistics that are not finite do not show in the losses of a training."""
    method = make_method("supervised")
    trainer = make_trainer(method)
    used: list[int] = []
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: used.append(1))
    update = method.update

    def spoil(step: int) -> None:
        update(step)
        if step == 2:
            method.network.state_dict()[name].fill_(INF)

    method.update = spoil
    with pytest.raises(NotFiniteError, match=rf"iteration 3: the network's weights are not finite \(network.{name}\)"):
        trainer.run()
    assert used == []


def test_a_single_overflow_is_left_to_the_loss_scaler(make_method: Callable, make_trainer: Callable) -> None:
    method = make_method("supervised", losses=(Scripted(1.0, INF, 1.0), Scripted()))
    trainer = make_trainer(method, **FP16)
    trainer.run()
    assert trainer.state.iteration == 3
    assert trainer.scaler.get_scale() < 2.0**16


def test_an_epoch_of_overflows_is_not(make_method: Callable, make_trainer: Callable) -> None:
    method = make_method("supervised", losses=(Scripted(INF, INF, INF), Scripted()))
    with pytest.raises(NotFiniteError, match="iteration 1: the loss term labeled"):
        make_trainer(method, **FP16).run()


def test_the_end_is_told_by_the_exception_alone(
    make_method: Callable, make_trainer: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    method = make_method("supervised", losses=(Scripted(NAN), Scripted()))
    with caplog.at_level(logging.INFO), pytest.raises(NotFiniteError):
        make_trainer(method).run()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
