# SPDX-License-Identifier: Apache-2.0
"""Whether a place can be written to, asked before any work is done for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from .errors import UserError, refuse

__all__ = ["check_no_training", "check_writable", "check_writable_file"]


def check_writable(*folders: str | Path) -> None:
    """Stop before any work if a folder cannot be made or written to; nothing stays behind.

    Args:
        folders: the folders; those that are missing are not made.

    Raises:
        UserError: with one message that names the first such folder and the reason.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_writable(folder, f"{folder}/a/new/one")
        ...     print(list(Path(folder).iterdir()))
        []
    """
    for folder in folders:
        refuse(_obstacles(Path(folder), folder))


def check_writable_file(path: str | Path) -> None:
    """Stop before any work if a file cannot be written, or replaced where it exists.

    Raises:
        UserError: with the path and the reason.
    """
    path = Path(path)
    refuse([f"{path}: cannot be written: it is a folder: name a file"] if os.path.isdir(path) else [])
    refuse(_obstacles(path.parent, path))


def check_no_training(ckpt_dir: str | Path, resume: bool = False, overwrite: bool = False) -> None:
    """Stop before a new training would destroy the one that a folder holds.

    Args:
        ckpt_dir: folder of the checkpoints.
        resume: the training goes on from its checkpoint.
        overwrite: what the folder holds may go.

    Raises:
        UserError: when both are set, or when the folder has a checkpoint and neither is.
    """
    if resume and overwrite:
        raise UserError(f"{ckpt_dir}: --resume goes on with its training and --overwrite lets it go: give one of them.")
    from metassl_monai.handlers.checkpoint_file import found_checkpoints  # with it comes torch

    found = found_checkpoints(ckpt_dir)
    if found and not resume and not overwrite:
        raise UserError(
            f"{found[0]}: is of an earlier training, which a new one would destroy: go on with it by --resume True, "
            "choose another --output_dir, or let it go by --overwrite True."
        )


def _obstacles(folder: Path, asked: str | Path) -> Iterator[str]:
    whole = Path(os.path.abspath(folder))
    there = next(path for path in (whole, *whole.parents) if os.path.lexists(path))
    # Only a trial tells: permissions bind no administrator, and a disk may be full or a name too long.
    try:
        with TemporaryDirectory(dir=there, prefix=".metassl-") as trial:
            place = Path(trial) / whole.relative_to(there)
            place.mkdir(parents=True, exist_ok=True)
            (place / "file").write_bytes(b"0")
    except OSError as error:
        yield f"{asked}: cannot be written: {error.strerror} (in {there}): choose another place"
