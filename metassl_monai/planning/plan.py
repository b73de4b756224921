# SPDX-License-Identifier: Apache-2.0
"""What to train, and why: written rules that turn a fingerprint into decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .rules import RULES

__all__ = ["Decision", "PlanError", "make_plan"]


class PlanError(ValueError):
    """A decision that was given and cannot be taken."""


class Decision(NamedTuple):
    """One decision: its name, what was decided, and why."""

    name: str
    value: Any
    reason: str


def make_plan(
    fingerprint: Mapping[str, Any], device: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> list[Decision]:
    """Decide everything that a training on a data set needs, one rule after the other.

    Each rule sees the fingerprint, the device and all decisions before it, so that a decision that is given changes
    those that follow from it.

    Args:
        fingerprint: see `take_fingerprint`.
        device: see `device_at_hand`.
        given: decisions that somebody has taken, by name.

    Returns:
        The decisions in the order in which they were taken.

    Raises:
        PlanError: for the name of a decision that there is none of, or a value that it cannot have.
    """
    given = dict(given or {})
    unknown = sorted(given.keys() - RULES.keys())
    if unknown:
        raise PlanError(f"--set {unknown[0]}: there is no such decision: choose one of {', '.join(RULES)}.")
    facts: dict[str, Any] = {"device": device, **fingerprint}
    decisions: list[Decision] = []
    for name, (rule, fits, expected) in RULES.items():
        if name in given:
            _refuse_misfit(name, given[name], fits, expected)
            value, reason = given[name], "as given"
        else:
            value, reason = rule(facts)
        facts[name] = value
        decisions.append(Decision(name, value, reason))
    return decisions


def _refuse_misfit(name: str, value: Any, fits: Callable[[Any], bool], expected: str) -> None:
    if not fits(value):
        raise PlanError(f"--set {name}={value}: must be {expected}.")
