# SPDX-License-Identifier: Apache-2.0
"""What a run is made with, by config id: the settings and the cases that its result depends on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from monai.bundle import ConfigExpression, ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

from metassl_monai.data.channels import image_files

from .command_line import running_parser

__all__ = ["run_record"]

_NO_MATTER = frozenset(
    {
        *("_desc_", "_requires_", "bundle_root", "checkpoint", "ckpt_dir", "compile", "compile_kwargs", "config_copy"),
        *("cuda_graph", "dataset_dir", "datalist", "device", "handlers", "local_rank", "method", "non_blocking"),
        *("num_workers", "output_dir", "params", "path", "pin_memory", "pretrained_path", "rank", "record", "resume"),
        "train_handlers",
    }
)
"""Last names of ids that cannot change a result, or that repeat other ids: ``method`` wraps ``method_def``."""


def run_record(*ids: str) -> dict[str, Any] | None:
    """Return what these ids of the running config depend on, for ``$metassl_monai.bundle.run_record('seed')`` in it.

    Every reference is followed. An expression of plain settings is recorded as its value, any other one as its text.
    Cases are recorded as their files inside the data folder, so that a datalist counts by what it lists. Places,
    devices and workers are left out.

    Args:
        ids: where to begin, such as the trainer and the method.

    Returns:
        The value by id, ready for JSON; ``None`` where no config is being evaluated.
    """
    parser = running_parser()
    return None if parser is None else dict(sorted(_Walk(parser).entries(ids)))


class _Walk:
    def __init__(self, parser: ConfigParser) -> None:
        self.parser = parser
        self.seen: set[str] = set()

    def entries(self, ids: Any) -> Iterator[tuple[str, Any]]:
        for id in ids:
            if id not in self.seen and id in self.parser:
                self.seen.add(id)
                yield from self._entries_of(id, self.parser[id])

    def _entries_of(self, id: str, value: Any) -> Iterator[tuple[str, Any]]:
        name = id.rpartition("::")[2]
        references = [] if not isinstance(value, str) else list(ReferenceResolver.match_refs_pattern(value))
        if isinstance(value, dict | list) and not self._is_plain(value):
            keys = value if isinstance(value, dict) else range(len(value))
            yield from self.entries(f"{id}::{key}" for key in keys if key not in _NO_MATTER)
        elif references and not ConfigExpression.is_expression(value):
            yield from self.entries(x for x in references if x.rpartition("::")[2] not in _NO_MATTER)
        elif name not in _NO_MATTER:
            known = self._value(id, value)
            yield id, value if known is None else known
            if known is None:
                yield from self.entries(x for x in references if x.rpartition("::")[2] not in _NO_MATTER)

    def _value(self, id: str, value: Any) -> Any:
        """The value as JSON has it, ``None`` where it is an object or made of some."""
        if isinstance(value, str) and ConfigExpression.is_expression(value):
            if any(self._is_built(x) for x in ReferenceResolver.match_refs_pattern(value)):
                return None  # building it here might draw random numbers in another order than the run does
            value = self._cases(self.parser.get_parsed_content(id))
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            return None

    def _cases(self, value: Any) -> Any:
        if not (isinstance(value, list) and value and all(isinstance(x, dict) and "image" in x for x in value)):
            return value
        folder = self.parser.get_parsed_content("dataset_dir")
        files = [[file for key in ("image", "label") if key in x for file in image_files(x[key])] for x in value]
        return [" + ".join(os.path.relpath(file, folder) for file in parts) for parts in files]

    def _is_built(self, id: str) -> bool:
        """Whether an object is built for this id or for one that it refers to."""
        return id in self.parser and self._builds(self.parser[id])

    def _builds(self, value: Any) -> bool:
        if isinstance(value, dict | list):
            parts = value.values() if isinstance(value, dict) else value
            return (isinstance(value, dict) and "_target_" in value) or any(map(self._builds, parts))
        return isinstance(value, str) and any(map(self._is_built, ReferenceResolver.match_refs_pattern(value)))

    def _is_plain(self, value: Any) -> bool:
        if isinstance(value, dict | list):
            parts = value.values() if isinstance(value, dict) else value
            return not (isinstance(value, dict) and "_target_" in value) and all(map(self._is_plain, parts))
        return not (isinstance(value, str) and value[:1] in ("@", "$"))
