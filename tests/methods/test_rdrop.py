# SPDX-License-Identifier: Apache-2.0
"""What is R-Drop's own: two passes of one network in one batch, and a divergence that both learn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


def gradient_of_passes(method: Any, batch: Any, term: str) -> tuple[Tensor, Tensor]:
    """Gradient of a term at the logits of each pass."""
    outputs: list[Tensor] = []
    method.network.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    terms, _ = method(batch, 0)
    [logits] = outputs
    [gradient] = torch.autograd.grad(terms[term], logits)
    return gradient.chunk(2)


@pytest.mark.parametrize("name", ["first", "second"])
def test_own_divergence_reaches_both_passes(name: str, row_of: Callable, make_method: Callable, batch: Any) -> None:
    first, second = gradient_of_passes(make_method(row_of("RDrop"), "own"), batch, f"unlabeled/{name}")
    for gradient in (first, second):
        assert gradient[:2].eq(0).all()  # the labeled images
        assert gradient[2:].ne(0).any()


@pytest.mark.parametrize(("kind", "stream"), [("metassl", "unlabeled"), ("metassl", "labeled"), ("own", "labeled")])
@pytest.mark.parametrize("name", ["first", "second"])
def test_other_terms_reach_the_pass_they_judge_alone(
    name: str, kind: str, stream: str, row_of: Callable, make_method: Callable, batch: Any
) -> None:
    gradients = dict(
        zip(
            ("first", "second"),
            gradient_of_passes(make_method(row_of("RDrop"), kind), batch, f"{stream}/{name}"),
            strict=True,
        )
    )
    assert gradients.pop(name).ne(0).any()
    [other] = gradients.values()
    assert other.eq(0).all()


def test_own_divergences_are_the_two_halves_of_the_symmetric_one(
    row_of: Callable, make_method: Callable, batch: Any
) -> None:
    method = make_method(row_of("RDrop"), "own", ramp=lambda step: 1.0)
    outputs: list[Tensor] = []
    method.network.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    terms = {name: term.detach() for name, term in method(batch, 0)[0].items()}
    p, q = (logits[2:].double().softmax(dim=1) for logits in outputs[0].detach().chunk(2))
    forth, back = ((p * (p / q).log()).sum(dim=1).mean(), (q * (q / p).log()).sum(dim=1).mean())
    assert float(terms["unlabeled/first"]) == pytest.approx(0.5 * float(forth), rel=1e-5)
    assert float(terms["unlabeled/second"]) == pytest.approx(0.5 * float(back), rel=1e-5)
    assert float(forth) != pytest.approx(float(back), rel=1e-3)


def test_without_dropout_the_passes_are_equal_and_the_divergence_is_zero(
    row_of: Callable, make_method: Callable, batch: Any
) -> None:
    method = make_method(row_of("RDrop"), "own").eval()
    terms = {name: float(term.detach()) for name, term in method(batch, 0)[0].items()}
    assert abs(terms["unlabeled/first"]) + abs(terms["unlabeled/second"]) < 1e-6
    assert terms["labeled/first"] == pytest.approx(terms["labeled/second"], rel=1e-5)
