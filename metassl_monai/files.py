# SPDX-License-Identifier: Apache-2.0
"""Writing files so that a crash leaves the old file or the new one, never half of one; strict JSON."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_write", "nan_for_null", "null_for_nan", "remove_leftovers", "write_json"]


@contextmanager
def atomic_write(path: str | Path, mode: str = "w", keep: str | Path | None = None) -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` for writing, sync it, and rename it to ``path`` on success.

    Args:
        path: the file to write; its folder is created.
        mode: ``"w"`` for text (UTF-8), ``"wb"`` for bytes.
        keep: where the file that was at ``path`` goes; left out, the new one replaces it.

    Example::

        >>> import tempfile
        >>> from pathlib import Path
        >>> from metassl_monai.files import atomic_write
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> with atomic_write(path) as file:
        ...     _ = file.write("case,dice")
        >>> path.read_text()
        'case,dice'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def remove_leftovers(folder: str | Path, suffix: str) -> None:
    """Remove the temporary files of `atomic_write` whose process was killed; nobody else may be writing there.

    Args:
        folder: where they lie.
        suffix: what the names of the files to write end with.
    """
    for file in Path(folder).glob(f".*{suffix}.????????"):  # as mkstemp names them
        file.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, content: Any) -> None:
    """Write strict JSON, with ``null`` for NaN, in one step.

    Args:
        path: the file to write; its folder is created.
        content: mappings, sequences, texts, numbers and booleans.

    Raises:
        TypeError: ``content`` has a type that JSON has not. Nothing is written.
        ValueError: A number is infinite, for which JSON has no form. Nothing is written.

    Example::

        >>> import tempfile
        >>> from pathlib import Path
        >>> from metassl_monai.files import write_json
        >>> path = Path(tempfile.mkdtemp()) / "run.json"
        >>> write_json(path, {"dice": float("nan")})
        >>> path.read_text().split()
        ['{', '"dice":', 'null', '}']
    """
    text = json.dumps(null_for_nan(content), indent=1, allow_nan=False) + "\n"
    with atomic_write(path) as file:
        file.write(text)


def null_for_nan(value: Any) -> Any:
    """Return a copy of nested mappings and sequences in which None stands for NaN."""
    if isinstance(value, Mapping):
        return {key: null_for_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def nan_for_null(value: Any) -> Any:
    """Return a copy of nested mappings and lists in which NaN stands for None."""
    if isinstance(value, Mapping):
        return {key: nan_for_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nan_for_null(item) for item in value]
    return math.nan if value is None else value
