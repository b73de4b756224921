# SPDX-License-Identifier: Apache-2.0
"""Names of a package whose modules are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from typing import Any

__all__ = ["imported_late"]


def imported_late(package: str, names: Collection[str], modules: Sequence[str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package (PEP 562): importing MONAI takes seconds, which not all need wait for.

    Args:
        package: its name.
        names: what it offers, its ``__all__``.
        modules: those of its modules that define the names which it has not imported itself.
    """

    def found_late(name: str) -> Any:
        if name in names:
            for module in modules:
                found = vars(import_module(f".{module}", package))
                if name in found:
                    return found[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return found_late
