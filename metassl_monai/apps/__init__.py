# SPDX-License-Identifier: Apache-2.0
"""What strings the rooms together: running bundles, checking before, evaluating after, the demo."""

from __future__ import annotations

from .errors import UserError
from .preflight import preflight

__all__ = ["UserError", "preflight"]
