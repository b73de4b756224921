# SPDX-License-Identifier: Apache-2.0
"""The config that was run, beside what it made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from metassl_monai.files import atomic_write

__all__ = ["SavedConfig"]


class SavedConfig:
    """Write the config of a run when its training starts, so that a run that was refused leaves no file.

    Give it after the handlers that may still refuse, such as ``TrainingCheckpoint``, and on the first rank only.

    Args:
        path: the JSON file to write.
        config: the config; a value that JSON has no form for is written as text. ``None`` writes nothing.
    """

    def __init__(self, path: str | Path, config: Any) -> None:
        self.path = Path(path)
        self.config = config

    def attach(self, engine: Engine) -> None:
        """Register on ``STARTED``."""
        if self.config is not None:
            engine.add_event_handler(Events.STARTED, self.save)

    def save(self) -> None:
        """Write the file."""
        with atomic_write(self.path) as file:
            json.dump(self.config, file, indent=4, default=str)
            file.write("\n")
