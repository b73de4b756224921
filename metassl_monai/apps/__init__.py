# SPDX-License-Identifier: Apache-2.0
"""What strings the rooms together: running bundles, checking before, evaluating after, the demo."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import UserError, user_mistake
from .writable import check_no_training, check_writable

if TYPE_CHECKING:
    from .command_line import check_command_line, running_config
    from .preflight import check_data, check_inference, check_network, check_volumes
    from .run_settings import run_record
    from .stages import first_stage, start_from
else:

    def __getattr__(name: str) -> Any:
        # importing MONAI takes seconds, which commands that run no bundle need not wait for
        if name in __all__:
            for module in ("command_line", "preflight", "run_settings", "stages"):
                found = vars(import_module(f".{module}", __name__))
                if name in found:
                    return found[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
