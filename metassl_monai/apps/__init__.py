# SPDX-License-Identifier: Apache-2.0
"""What strings the rooms together: running bundles, checking before, evaluating after, the demo."""

from __future__ import annotations

from .errors import UserError
from .preflight import check_command_line, check_data

__all__ = ["UserError", "check_command_line", "check_data"]
