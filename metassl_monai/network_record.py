# SPDX-License-Identifier: Apache-2.0
"""What a network was made with, in a JSON file beside it: ``model.json`` for ``model.pt``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import write_json

__all__ = ["made_with", "read_record", "write_record"]


def write_record(network: str | Path, content: bytes | memoryview, record: Mapping[str, Any]) -> None:
    """Write the record of a network.

    Args:
        network: the network's file.
        content: its bytes, which the record is tied to by their SHA-256.
        record: ready for JSON.
    """
    digest = hashlib.sha256(content).hexdigest()
    write_json(Path(network).with_suffix(".json"), {"sha256": digest, "made_with": record})


def read_record(network: str | Path) -> tuple[str, dict[str, Any]]:
    """Return the SHA-256 of the network that a record was written for, and the record.

    Raises:
        OSError: when there is none.
        ValueError: when the file is no record.
    """
    content = json.loads(Path(network).with_suffix(".json").read_text(encoding="utf-8"))
    try:
        return str(content["sha256"]), dict(content["made_with"])
    except (KeyError, TypeError):
        raise ValueError("no record of a network") from None


def made_with(network: str | Path) -> dict[str, Any]:
    """Return what a network was made with; nothing where there is no record of this very file.

    Example:
        >>> import tempfile
        >>> network = Path(tempfile.mkdtemp()) / "model.pt"
        >>> _ = network.write_bytes(b"weights")
        >>> write_record(network, b"weights", {"orientation": "RAS"})
        >>> made_with(network)
        {'orientation': 'RAS'}
        >>> _ = network.write_bytes(b"other weights")
        >>> made_with(network)
        {}
    """
    try:
        digest, record = read_record(network)
        return record if digest == hashlib.sha256(Path(network).read_bytes()).hexdigest() else {}
    except (OSError, ValueError):
        return {}
