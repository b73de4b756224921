# SPDX-License-Identifier: Apache-2.0
"""What is only to be looked at must not cost the training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["nonfatal"]


@contextmanager
def nonfatal(what: str) -> Iterator[None]:
    """Turn an exception into a warning: a full disk, an odd value that cannot be drawn.

    Args:
        what: what is missing where it fails, the beginning of the warning.

    Example::

        >>> from metassl_monai.handlers.nonfatal import nonfatal
        >>> with nonfatal("no picture of epoch 3"):
        ...     raise OSError("disk full")
    """
    try:
        yield
    except Exception as error:  # a picture is not worth any of them
        logging.getLogger(__name__).warning("%s, the run goes on: %s: %s", what, type(error).__name__, error)
