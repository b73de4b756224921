# SPDX-License-Identifier: Apache-2.0
"""How long files and functions of the package may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import metassl_monai

PACKAGE = Path(metassl_monai.__file__).parent
LONGEST_FILE = 250
LONGEST_FUNCTION = 40
FILES = sorted(PACKAGE.rglob("*.py"))


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function, its docstring aside."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def test_lines_are_counted_without_the_docstring():
    source = 'def f(\n    x: int,\n) -> int:\n    """Two\n\n    lines."""\n    return x\n'
    assert list(functions(source)) == [("f", 4)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_short(file: Path):
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST_FILE
    assert [(name, lines) for name, lines in functions(source) if lines > LONGEST_FUNCTION] == []
