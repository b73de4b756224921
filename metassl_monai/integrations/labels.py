# SPDX-License-Identifier: Apache-2.0
"""Names and colors of label values, as 3D Slicer and ITK-SNAP read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.colors import to_rgb

from metassl_monai.files import atomic_write
from metassl_monai.report.palette import structure_colormap

__all__ = ["ITK_SNAP_FILE", "SLICER_FILE", "Label", "named_labels", "write_label_tables"]

SLICER_FILE = "labels.ctbl"
ITK_SNAP_FILE = "labels_itksnap.txt"


class Label(NamedTuple):
    """A structure in a label map."""

    value: int
    name: str
    color: tuple[float, float, float]
    """Red, green and blue, 0 to 1, as in this package's pictures."""


def named_labels(names: Mapping[str, str], label_values: Mapping[str, int] | None = None) -> list[Label]:
    """Return the structures of a bundle, without background, in the order of their classes.

    Args:
        names: name by class, ``{"0": "background", "1": "aorta"}``.
        label_values: class by the value in the file, as in a datalist; the class itself if left out.

    Example:
        >>> named_labels({"0": "background", "1": "aorta"}, {"0": 0, "255": 1})
        [Label(value=255, name='aorta', color=(0.835, 0.369, 0.0))]
    """
    values = {number: int(value) for value, number in (label_values or {}).items()}
    colors: Any = structure_colormap(len(names)).colors

    def label(number: int) -> Label:
        red, green, blue = (round(part, 3) for part in to_rgb(colors[number]))
        return Label(values.get(number, number), names[str(number)], (red, green, blue))

    return [label(number) for number in sorted(map(int, names)) if number > 0]


def write_label_tables(labels: Iterable[Label], folder: Path) -> None:
    """Write a color table for 3D Slicer and label descriptions for ITK-SNAP into a folder.

    Args:
        labels: see :func:`named_labels`.
        folder: the folder of the label maps; made where it is missing.
    """
    labels = list(labels)
    for name, lines in ((SLICER_FILE, _slicer_lines(labels)), (ITK_SNAP_FILE, _itk_snap_lines(labels))):
        with atomic_write(folder / name) as file:
            file.write("".join(f"{line}\n" for line in lines))


def _slicer_lines(labels: list[Label]) -> Iterator[str]:
    yield f"# Color table file {SLICER_FILE}"
    yield f"# {len(labels) + 1} values"
    yield "0 background 0 0 0 0"
    for label in sorted(labels):
        # a name ends at the first space
        yield f"{label.value} {'_'.join(label.name.split())} {_bytes(label)} 255"


def _itk_snap_lines(labels: list[Label]) -> Iterator[str]:
    yield "# ITK-SnAP Label Description File"
    yield "# value, red, green, blue, opacity, visible, in meshes, name"
    yield '0 0 0 0 0 0 0 "Clear Label"'
    for label in sorted(labels):
        name = label.name.replace('"', "'")
        yield f'{label.value} {_bytes(label)} 1 1 1 "{name}"'


def _bytes(label: Label) -> str:
    return " ".join(str(round(255 * part)) for part in label.color)
