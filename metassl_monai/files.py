# SPDX-License-Identifier: Apache-2.0
"""Writing files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["atomic_write"]


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside ``path`` for writing, sync it, and rename it to ``path`` on success.

    Args:
        path: the file to write; its folder is created.
        mode: ``"w"`` for text (UTF-8), ``"wb"`` for bytes.

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
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
