# SPDX-License-Identifier: Apache-2.0
"""The config that was run and what it ran on, beside what it made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from metassl_monai.files import atomic_write, write_json

from .nonfatal import nonfatal
from .run_facts import run_facts

__all__ = ["SavedConfig"]


class SavedConfig:
    """Write the config of a run when its training starts, so that a run that was refused leaves no file.

    Beside it ``environment.json`` has what a config cannot say, see :func:`~metassl_monai.handlers.run_facts`.

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

    def save(self, engine: Engine) -> None:
        """Write the files."""
        with atomic_write(self.path) as file:
            json.dump(self.config, file, indent=4, default=str)
            file.write("\n")
        with nonfatal("no environment.json"):
            write_json(self.path.with_name("environment.json"), run_facts(engine))
