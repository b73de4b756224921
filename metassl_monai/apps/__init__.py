# SPDX-License-Identifier: Apache-2.0
"""What strings the rooms together: running bundles, checking before, evaluating after, the demo."""

from __future__ import annotations

from .command_line import check_command_line, running_config
from .errors import UserError, user_mistake
from .preflight import check_data, check_inference, check_network, check_volumes
from .run_record import run_record
from .stages import first_stage, start_from
from .writable import check_no_training, check_writable

__all__ = [
    "UserError",
    "check_command_line",
    "check_data",
    "check_inference",
    "check_network",
    "check_no_training",
    "check_volumes",
    "check_writable",
    "first_stage",
    "run_record",
    "running_config",
    "start_from",
    "user_mistake",
]
