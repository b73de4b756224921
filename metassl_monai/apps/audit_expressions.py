# SPDX-License-Identifier: Apache-2.0
"""What the expressions of a config would do, read from their syntax trees; nothing is evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from .audit_names import BUILTINS, METHODS_THAT_ACT, is_known_module, name_mistake

__all__ = ["expression_flags", "imported_names", "path_flag"]

_REFERENCE = re.compile(r"@\w*(?:(?:::|#)\w*)*")
_OF_THE_CONFIG = "referred_to"
_PRESENT = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
"""Modules that MONAI hands every expression."""
_HIDDEN = ("f_back", "f_builtins", "f_globals", "f_locals", "gi_frame", "cr_frame", "mro", "tb_frame")


def imported_names(expressions: Iterator[str]) -> dict[str, str]:
    """Return the module or object that each name means which the imports of a bundle's configs bring in."""
    names = dict(_PRESENT)
    for expression in expressions:
        for node in _import(expression):
            for alias in node.names:
                if isinstance(node, ast.ImportFrom):
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                else:
                    names[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
    return names


def expression_flags(expression: str, names: Mapping[str, str]) -> list[str]:
    """Return what in a ``$`` expression is outside of what is known; empty where nothing is.

    Args:
        expression: with its ``$``.
        names: what imported names mean, see `imported_names`.

    Example:
        >>> expression_flags("$@epochs * 2", {}), expression_flags("$__import__('os').system('x')", {})
        ([], ['calls the method system', 'uses the name __import__'])
    """
    imports = _import(expression)
    if imports:
        return sorted(flag for node in imports for flag in _import_flags(node))
    text = _REFERENCE.sub(_OF_THE_CONFIG, expression.lstrip("$")).strip()
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ["is no expression that can be read"]
    return sorted({*_flags(tree, names)})


def path_flag(text: str, absolute: bool = True) -> str | None:
    """Return why a text is a place outside of the bundle; None where it is none.

    Args:
        text: any text of a config.
        absolute: whether a path from the root counts, which a text that is appended to another is not.

    Example:
        >>> path_flag("../../home"), path_flag("/models", absolute=False)
        ('leaves the bundle by ..', None)
    """
    if ".." in re.split(r"[/\\]", text):
        return "leaves the bundle by .."
    if re.match(r"(?:[a-z][a-z0-9+.]+://)", text, re.IGNORECASE):
        return "is an address"
    if absolute and re.match(r"(?:/|~|\\\\|[A-Za-z]:[/\\])[^\s]", text):
        return "is a place outside of the bundle"
    return None


def _import(expression: str) -> list[ast.Import | ast.ImportFrom]:
    try:
        body = ast.parse(expression.lstrip("$").strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)] if len(body) == 1 else []


def _import_flags(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    for alias in node.names:
        if isinstance(node, ast.Import):
            if not is_known_module(alias.name):
                yield f"imports {alias.name}"
        else:
            name = f"{node.module}.{alias.name}"
            if node.level or (not is_known_module(name) and name_mistake(name)):
                yield f"imports {name}"


def _is_limit_of_pictures(node: ast.AST, names: Mapping[str, str]) -> bool:
    """Whether this is Pillow's limit being set, the one setting that a bundle of pictures has to change."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr"):
        return False
    what = [ast.unparse(argument) for argument in node.args[:2]]
    return what == ["Image", "'MAX_IMAGE_PIXELS'"] and names.get("Image") == "PIL.Image"


def _flags(tree: ast.Expression, names: Mapping[str, str]) -> Iterator[str]:
    bound = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    bound |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if _is_limit_of_pictures(node, names):
            inner |= {id(node.func), id(node.args[0])}  # type: ignore[attr-defined]
    appended = {id(node.right) for node in ast.walk(tree) if isinstance(node, ast.BinOp)}
    appended |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values[1:]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            yield from _attribute_flags(node, names, bound)
        elif isinstance(node, ast.Name) and id(node) not in inner:
            yield from _name_flags(node.id, names, bound)
        elif isinstance(node, ast.Call) and not isinstance(node.func, ast.Name | ast.Attribute | ast.Lambda):
            yield "calls something that is only known when it runs"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            flag = path_flag(node.value, absolute=id(node) not in appended)
            if flag:
                yield f"{node.value!r} {flag}"
            if "__" in node.value:
                yield f"holds the text {node.value!r}"


def _name_flags(name: str, names: Mapping[str, str], bound: set[str]) -> Iterator[str]:
    if name in bound or name in BUILTINS or name == _OF_THE_CONFIG:
        return
    if name not in names:
        yield f"uses the name {name}"
    elif mistake := name_mistake(names[name]):
        yield f"hands over {names[name]}" if is_known_module(names[name]) else mistake


def _attribute_flags(node: ast.Attribute, names: Mapping[str, str], bound: set[str]) -> Iterator[str]:
    parts: list[str] = []
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        parts.insert(0, root.attr)
        root = root.value
    if isinstance(root, ast.Name) and root.id in names and root.id not in bound:
        if mistake := name_mistake(".".join([names[root.id], *parts])):
            yield mistake
        return
    if isinstance(root, ast.Name):
        yield from _name_flags(root.id, names, bound)
    for part in parts:
        if part in METHODS_THAT_ACT:
            yield f"calls the method {part}"
        elif part.startswith("_") or part in _HIDDEN:
            yield f"reaches for {part}"
