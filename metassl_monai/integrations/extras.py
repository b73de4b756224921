# SPDX-License-Identifier: Apache-2.0
"""Packages that only some users need."""

from __future__ import annotations

import importlib
from typing import Any

from metassl_monai.bundle.errors import UserError

__all__ = ["required"]


def required(package: str, extra: str, purpose: str) -> Any:
    """Import a package of an extra.

    Args:
        package: its name.
        extra: the extra of this package that brings it.
        purpose: what it is for.

    Raises:
        UserError: with the command that installs it.

    Example:
        >>> required("no_such_package", "none", "an example")
        Traceback (most recent call last):
            ...
        metassl_monai.bundle.errors.UserError: an example needs no_such_package: pip install no_such_package, or install metassl-monai with its extra [none].
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise UserError(
            f"{purpose} needs {package}: pip install {package}, or install metassl-monai with its extra [{extra}]."
        ) from None
