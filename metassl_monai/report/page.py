# SPDX-License-Identifier: Apache-2.0
"""One HTML file that needs no other, legible on a phone and on paper, and the tables behind it as CSV."""

from __future__ import annotations

import base64
import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from metassl_monai.files import atomic_write

__all__ = ["Entry", "Picture", "Section", "Table", "figure_picture", "file_picture", "write_page"]

_COLORS = 192


class Picture(NamedTuple):
    """A PNG in base64, what it shows in words, and what is written below it."""

    png: str
    alt: str
    caption: str
    source: Path | None = None
    """The file with its numbers, or the picture itself."""
    large: bool = False
    """Whether it takes the width of the page."""


class Table(NamedTuple):
    """A table, whose first column names its rows, and where its numbers are in full."""

    name: str
    """Of the CSV file, without its ending."""
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    records: Sequence[Mapping[str, Any]] | None = None
    """The rows of the CSV file; None where the table itself is all there is."""


class Entry(NamedTuple):
    """An entry of a legend; without a color it is text."""

    color: str
    text: str


class Section(NamedTuple):
    """A part of a page, which may have parts; what is empty is left out."""

    title: str
    text: Sequence[str] = ()
    legend: Sequence[Entry] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[str] = ()
    parts: Sequence[Section] = ()


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> list[Path]:
    """Write a page, and its tables beside it into ``<name>_tables``, each whole or not at all.

    All text is taken literally.

    Args:
        path: the HTML file.
        title: heading of the page.
        sections: its parts in order. Tables of one name are one only where they are of one content.

    Returns:
        The files that were written, the page first.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "report.html")
        >>> table = Table("scores", "Dice", ("structure", "Dice"), [("heart", "0.9")])
        >>> [file.name for file in write_page(path, "a & b", [Section("Results", tables=[table])])]
        ['report.html', 'scores.csv']
        >>> "<h1>a &amp; b</h1>" in path.read_text(encoding="utf-8")
        True
    """
    path = Path(path)
    files = {table.name: path.with_name(f"{path.stem}_tables") / f"{table.name}.csv" for table in _tables(sections)}
    for table in _tables(sections):
        _write_table(files[table.name], table)
    shown = [_with_sources(section, path.parent, files) for section in sections]
    with atomic_write(path) as file:
        file.write(_environment().get_template("page.html").render(title=title, sections=shown))
    return [path, *files.values()]


def figure_picture(figure: Figure, alt: str, caption: str, source: Path | None = None, large: bool = False) -> Picture:
    """Return a figure as a picture for a page; ``source`` is the file with its numbers."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return Picture(_small_png(buffer), alt, caption, source, large)


def file_picture(path: Path, alt: str, caption: str) -> Picture:
    """Return a PNG file as a picture for a page."""
    return Picture(_small_png(path), alt, caption, path, large=True)


def _small_png(file: Any) -> str:
    """Return a picture in base64 with as many colors as gray images and a few lines need, a third of the size."""
    buffer = io.BytesIO()
    with Image.open(file) as picture:
        few = picture.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
        few.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader(__package__, "templates"), autoescape=True, undefined=StrictUndefined)


def _tables(sections: Sequence[Section]) -> Iterator[Table]:
    for section in sections:
        yield from section.tables
        yield from _tables(section.parts)


def _write_table(file: Path, table: Table) -> None:
    records = table.records
    if records is None:
        records = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    with atomic_write(file) as target:
        writer = csv.DictWriter(target, list(records[0]) if records else table.header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def _with_sources(section: Section, folder: Path, files: Mapping[str, Path]) -> dict[str, Any]:
    """Return a section for the template, which links to the files from where the page lies."""

    def link(file: Path | None) -> str:
        return quote(Path(os.path.relpath(file, folder)).as_posix()) if file else ""

    return {
        **section._asdict(),
        "tables": [{**table._asdict(), "source": link(files[table.name])} for table in section.tables],
        "pictures": [{**picture._asdict(), "source": link(picture.source)} for picture in section.pictures],
        "parts": [_with_sources(part, folder, files) for part in section.parts],
    }
