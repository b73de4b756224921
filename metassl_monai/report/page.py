# SPDX-License-Identifier: Apache-2.0
"""One HTML file that needs no other: text, tables, pictures and commands, legible on a phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from metassl_monai.files import atomic_write

__all__ = ["Picture", "Section", "figure_picture", "file_picture", "write_page"]

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; color: #1b1b1b; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2rem; border-bottom: 1px solid #bbb; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; }
td { overflow-wrap: anywhere; min-width: 5rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; }
pre { background: #f3f3f3; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { h2, figure { break-inside: avoid; } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{%- for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{%- for paragraph in section.text %}
<p>{{ paragraph }}</p>
{%- endfor %}
{%- if section.rows %}
<div class="wide" tabindex="0">
<table>
<thead><tr>{% for name in section.header %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in section.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- endif %}
{%- for picture in section.pictures %}
<figure>
<img src="data:image/png;base64,{{ picture.png }}" alt="{{ picture.alt }}">
<figcaption>{{ picture.caption }}</figcaption>
</figure>
{%- endfor %}
{%- if section.commands %}
<pre><code>{{ section.commands | join("\\n") }}</code></pre>
{%- endif %}
</section>
{%- endfor %}
</body>
</html>
"""


class Picture(NamedTuple):
    """A PNG in base64, what it shows in words, and what is written below it."""

    png: str
    alt: str
    caption: str


class Section(NamedTuple):
    """A part of a page; what is empty is left out."""

    title: str
    text: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[str] = ()


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page, whole or not at all. All text is taken literally.

    Args:
        path: the HTML file.
        title: heading of the page.
        sections: its parts in order.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "report.html")
        >>> write_page(path, "a & b", [Section("Results", header=("structure", "Dice"), rows=[("heart", "0.9")])])
        >>> "<h1>a &amp; b</h1>" in path.read_text(encoding="utf-8")
        True
    """
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE)
    with atomic_write(path) as file:
        file.write(template.render(title=title, sections=sections))


def figure_picture(figure: Figure, alt: str, caption: str) -> Picture:
    """Return a figure as a picture for a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Picture(base64.b64encode(buffer.getvalue()).decode("ascii"), alt, caption)


def file_picture(path: Path, alt: str, caption: str) -> Picture:
    """Return a PNG file as a picture for a page."""
    return Picture(base64.b64encode(path.read_bytes()).decode("ascii"), alt, caption)
