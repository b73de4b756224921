# SPDX-License-Identifier: Apache-2.0
"""Packages that only some users need."""

from __future__ import annotations

import importlib
from typing import Any

from metassl_monai.bundle.errors import UserError

__all__ = ["required"]


def required(package: str, purpose: str) -> Any:
    """Import a package of an extra.

    Args:
        package: its name, on PyPI too.
        purpose: what it is for.

    Raises:
        UserError: with the command that installs it.

    Example:
        >>> required("no_such_package", "an example")
        Traceback (most recent call last):
        metassl_monai.bundle.errors.UserError: an example needs no_such_package: pip install no_such_package.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise UserError(f"{purpose} needs {package}: pip install {package}.") from None
