# SPDX-License-Identifier: Apache-2.0
"""Reads an HTML page and says what a reader who does not see it, or sees no colors, would miss."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser

from matplotlib.colors import to_rgb

VOID = {"meta", "img", "br", "hr", "link"}
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


class PageReader(HTMLParser):
    """The elements of a page; nesting that HTML forbids fails at once."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text, self.cells = [], [], {}, []
        self.pictures, self.links, self.headers, self.regions, self.ids = [], [], [], [], []
        self.language = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names)
        values = dict(attributes)
        self.seen.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.language = values.get("lang", self.language)
        lists = {"img": self.pictures, "th": self.headers}
        if tag in lists:
            lists[tag].append(values)
        if tag == "a":
            self.links.append(values["href"])
        if values.get("role") == "region":
            self.regions.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        here = self.open[-1] if self.open else ""
        self.text.setdefault(here, []).append(data)
        if here in ("td", "th") and "tbody" in self.open:
            self.cells.append(data)

    def problems(self):
        """What keeps somebody from reading the page."""
        found = []
        found += [] if self.language == "en" else ["no language"]
        found += [f"alt {it.get('alt')!r} says little" for it in self.pictures if len(it.get("alt", "")) < 20]
        found += [f"th without scope: {it}" for it in self.headers if it.get("scope") not in ("col", "row")]
        found += [] if self.seen.count("caption") == self.seen.count("table") else ["a table without caption"]
        found += [f"{it} cannot be scrolled by keys" for it in self.regions if it.get("tabindex") != "0"]
        labels = [it.get("aria-label") for it in self.regions]
        found += [f"two regions are {label!r}" for label in {it for it in labels if labels.count(it) > 1}]
        found += [f"two elements are #{name}" for name in {it for it in self.ids if self.ids.count(it) > 1}]
        found += [f"{link} leads nowhere" for link in self.links if link[:1] == "#" and link[1:] not in self.ids]
        levels = [HEADINGS.index(tag) for tag in self.seen if tag in HEADINGS]
        found += [f"h{a + 1} before h{b + 1}" for a, b in itertools.pairwise(levels) if b > a + 1]
        found += [] if levels.count(0) == self.seen.count("title") == self.seen.count("main") == 1 else ["not one h1"]
        return found


def contrast(one, other):
    """Contrast of two colors as WCAG 2 defines it, 1 to 21."""
    lights = sorted(_luminance(color) for color in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
