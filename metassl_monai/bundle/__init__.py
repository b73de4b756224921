# SPDX-License-Identifier: Apache-2.0
"""What configs call and what finds them: checks before a run, its command line, its stages, its mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metassl_monai.late_imports import imported_late

from .errors import UserError, user_mistake
from .writable import check_no_training, check_writable

if TYPE_CHECKING:
    from .command_line import check_command_line, running_config
    from .preflight import check_data, check_inference, check_network, check_volumes
    from .run_settings import run_record
    from .stages import first_stage, first_stage_trainer, start_from

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
    "first_stage_trainer",
    "run_record",
    "running_config",
    "start_from",
    "user_mistake",
]

if not TYPE_CHECKING:
    __getattr__ = imported_late(__name__, __all__, ("command_line", "preflight", "run_settings", "stages"))
