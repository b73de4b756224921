# SPDX-License-Identifier: Apache-2.0
"""Which epochs are looked at."""

from __future__ import annotations

from typing import Any

__all__ = ["is_due"]


def is_due(engine: Any, interval: int) -> bool:
    """Say whether it is the turn of a trainer's epoch: each of an interval, and the last one always."""
    epoch: int = engine.state.epoch
    return epoch % interval == 0 or epoch == engine.state.max_epochs
