# SPDX-License-Identifier: Apache-2.0
"""The check of an argument that takes one of a few words."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["check_option"]


def check_option(name: str, value: object, known: Collection[str]) -> None:
    """Raise ValueError unless ``value`` is one of the words that the argument ``name`` takes.

    Args:
        name: the argument.
        value: what it was given.
        known: the words that it takes, such as ``get_args`` of a ``Literal``.

    Raises:
        ValueError: when it is none of them; the message names them all.

    Example:
        >>> from metassl_monai.options import check_option
        >>> check_option("mode", "half", ("quad", "confidence"))
        Traceback (most recent call last):
        ...
        ValueError: mode='half' is unknown: choose 'quad' or 'confidence'.
    """
    if value not in known:
        words = " or ".join(map(repr, known)) if len(known) == 2 else f"one of {list(known)}"
        raise ValueError(f"{name}={value!r} is unknown: choose {words}.")
