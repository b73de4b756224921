# SPDX-License-Identifier: Apache-2.0
"""The contract of ``Method``: what becomes of the pairs that a method yields."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metassl_monai.methods import Method, Pair, Step


class Recorder(nn.Module):
    """A loss that keeps what it was called with."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.calls: list[tuple[Any, ...]] = []

    def forward(self, *arguments: Any) -> Tensor:
        self.calls.append(arguments)
        return torch.tensor(self.value)


class Scripted(Method):
    names = {"labeled": ("a",), "unlabeled": ("a", "b")}

    def pairs(self, batch: Any, step: int) -> Step:
        return Step(batch["pairs"], {"extra/term": torch.tensor(7.0)}, batch["prediction"])


def logits() -> Tensor:
    return torch.randn(1, 2, 4, 4)


def test_pair_reaches_its_loss_with_all_its_parts_weight_and_ramp() -> None:
    method = Scripted(nn.Identity(), Recorder(3.0), Recorder(5.0), ramp=lambda step: 0.1 * step)
    target, label, mask = (torch.ones(1, 1, 4, 4) for _ in range(3))
    labeled = Pair(logits(), logits(), "a", target, label, mask, weight=0.5)
    unlabeled = Pair(logits(), logits(), "b", label=label, mask=mask, weight=0.25)
    plain = Pair(logits(), logits(), "a")
    prediction = logits()
    terms, returned = method({"pairs": [labeled, unlabeled, plain], "prediction": prediction}, 2)
    values = {name: value.item() for name, value in terms.items()}
    assert values == pytest.approx(
        {
            "labeled/a": 0.5 * 3.0,
            "unlabeled/b": 0.2 * 0.25 * 5.0,
            "unlabeled/a": 0.2 * 5.0,
            "extra/term": 7.0,
        }
    )
    assert returned is prediction

    def same(call: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
        return len(call) == len(expected) and all(a is b or a == b for a, b in zip(call, expected, strict=True))

    [call] = method.labeled_losses["a"].calls
    assert same(call[:-1], (labeled.prediction, target, labeled.reference, label, mask))
    assert call[-1] == pytest.approx(0.2)
    [call] = method.unlabeled_losses["b"].calls
    assert same(call, (unlabeled.prediction, unlabeled.reference, label, mask))
    [call] = method.unlabeled_losses["a"].calls
    assert same(call, (plain.prediction, plain.reference, None, None))


def test_losses_exist_for_the_names_of_their_stream_only() -> None:
    method = Scripted(nn.Identity(), Recorder(1.0), Recorder(1.0), ramp=lambda step: 1.0)
    assert list(method.labeled_losses) == ["a"]
    assert list(method.unlabeled_losses) == ["a", "b"]
    assert [name for name, _ in method.named_losses()] == ["labeled/a", "unlabeled/a", "unlabeled/b"]


def test_method_without_pairs_says_what_to_write() -> None:
    class Unwritten(Method):
        names = {"labeled": ("a",), "unlabeled": ()}

    method = Unwritten(nn.Identity(), Recorder(1.0), Recorder(1.0), ramp=lambda step: 1.0)
    with pytest.raises(NotImplementedError, match="Unwritten must write pairs"):
        method({}, 0)
