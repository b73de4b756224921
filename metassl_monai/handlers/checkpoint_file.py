# SPDX-License-Identifier: Apache-2.0
"""The files that hold the state of a training: the newest one, and the one before in case that is damaged."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from .ranks import is_first_rank

__all__ = ["CheckpointError", "found_checkpoints", "newest_checkpoint", "previous_checkpoint"]

_logger = logging.getLogger(__name__)
_NAMES = ("checkpoint.pt", "pretrained_checkpoint.pt")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the run that is to be resumed."""


def previous_checkpoint(path: Path) -> Path:
    """Return the file of the checkpoint before the newest one.

    Example:
        >>> previous_checkpoint(Path("models/checkpoint.pt")).name
        'checkpoint_previous.pt'
    """
    return path.with_name(f"{path.stem}_previous{path.suffix}")


def found_checkpoints(ckpt_dir: str | Path) -> list[Path]:
    """Return the checkpoints that a bundle's training left in a folder, those within a first stage included."""
    newest = [Path(ckpt_dir) / name for name in _NAMES]
    return [path for path in (*newest, *map(previous_checkpoint, newest)) if path.exists()]


def newest_checkpoint(path: Path) -> tuple[Path, dict[str, Any]]:
    """Read the newest checkpoint, or with a warning the one before where the newest is damaged.

    The newest is also missing where a process was killed after it had put the one before aside.

    Args:
        path: the newest one.

    Returns:
        The file that was read, and its content.

    Raises:
        CheckpointError: when none can be read, with what is wrong with the newest.
    """
    previous = previous_checkpoint(path)
    if not path.exists():
        damage, content = f"{path}: is missing", _read(previous)
    else:
        try:
            return path, _read(path)
        except CheckpointError as error:
            damage = str(error).partition(": put back")[0]
            try:
                content = _read(previous)
            except CheckpointError:
                raise error from None
    if is_first_rank():
        _logger.warning("%s: the training goes on from %s, after epoch %d", damage, previous, content["epoch"])
    return previous, content


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch compares no checksums
                raise zipfile.BadZipFile("a checksum is wrong")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise nearly anything
        raise CheckpointError(
            f"{path}: is damaged, or no checkpoint ({type(error).__name__}): put back a copy, or remove it to "
            "start anew."
        ) from None
    if not isinstance(checkpoint, dict) or "epoch" not in checkpoint:
        raise CheckpointError(
            f"{path}: is not the checkpoint of a training: put back the checkpoint.pt that the run wrote, or "
            "remove it to start anew."
        )
    return checkpoint
