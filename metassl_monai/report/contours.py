# SPDX-License-Identifier: Apache-2.0
"""One plane of a case with the contours of its structures, as a radiologist looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import nibabel
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from .palette import structure_color

__all__ = ["Plane", "contour_figure", "planes_of", "shown_slices"]

_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
_TURNED = ("RAI", "RPI")
"""Where the axes of a plane must not point: right is the patient's left or posterior, up anterior or superior."""

_UNSURE = "#ffe600"
_SLANTED = 0.4
"""Cosine from which on a further letter says that an axis slants."""


class Plane(NamedTuple):
    """What :func:`contour_figure` shows; all maps ``(H, W)``, the first axis to the right, the second one up."""

    image: np.ndarray
    truth: np.ndarray | None
    """Annotated class indices."""
    prediction: np.ndarray
    """Predicted class indices."""
    unsure: np.ndarray | None
    """Where the network is not confident."""
    spacing: tuple[float, float]
    """Size of a voxel in mm; of a picture, which has none, 1."""
    sides: tuple[str, str]
    """Side of the patient at the right and at the top, such as ``("L", "A")``, of a slanted axis with a further letter;
    empty where it is not known."""
    place: str
    """Which plane of the volume it is, such as ``"slice 5 of 8"``; empty of a picture."""


def planes_of(
    image: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    unsure: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    count: int = 3,
) -> list[Plane]:
    """Cut a case into the planes to look at: evenly over those of the last axis that hold a structure.

    Args:
        image: ``(X, Y, Z)`` or ``(X, Y)``.
        prediction: class indices of the same shape.
        truth: annotated class indices; None where nobody annotated the case.
        unsure: where the network is not confident.
        affine: from voxels to millimeters, RAS; None of a picture, whose first row is its top.
        count: number of planes, fewer where there are fewer with a structure.

    Example:
        >>> classes = np.zeros((4, 4, 9)); classes[1:3, 1:3, 2:7] = 1
        >>> [(plane.place, plane.sides) for plane in planes_of(classes, classes, affine=np.eye(4))]
        [('slice 3 of 9', ('L', 'A')), ('slice 5 of 9', ('L', 'A')), ('slice 7 of 9', ('L', 'A'))]
    """
    chosen: Sequence[int | None] = [None]
    if image.ndim == 3:
        chosen = shown_slices(prediction > 0 if truth is None else truth > 0, count)
    return [_plane(number, [image, truth, prediction, unsure], affine) for number in chosen]


def shown_slices(structures: np.ndarray, count: int) -> list[int]:
    """Choose slices of the last axis, evenly over those that hold a structure, or over all where none does.

    Args:
        structures: where there is one, ``(X, Y, Z)``.
        count: number of slices, fewer where there are fewer with a structure.
    """
    held = np.flatnonzero(structures.any(axis=(0, 1)))
    held = held if held.size else np.arange(structures.shape[2])
    number = min(count, held.size)
    chosen: list[int] = held[((np.arange(number) + 0.5) * held.size / number).astype(int)].tolist()
    return chosen


def contour_figure(plane: Plane) -> Figure:
    """Draw a plane: contours of the annotation solid, of the prediction dashed, hatched where the network is unsure.

    The number beside a contour is the class, so that nothing is said by color alone.

    Returns:
        A figure; ``figure.savefig(path)`` writes it.
    """
    width, height = (size * step for size, step in zip(plane.image.shape, plane.spacing, strict=True))
    side = 4.0 / max(width, height)
    figure = Figure(figsize=(max(width * side, 1.0), max(height * side, 1.0)), facecolor="black")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.imshow(plane.image.T, cmap="gray", origin="lower", aspect=plane.spacing[1] / plane.spacing[0])
    if plane.unsure is not None and plane.unsure.any():
        hatched = ax.contourf(plane.unsure.T, levels=[0.5, 1], colors="none", hatches=["//"])
        hatched.set_edgecolor(_UNSURE)
        hatched.set_linewidth(0)
        ax.contour(plane.unsure.T, levels=[0.5], colors=_UNSURE, linewidths=0.8, linestyles="dotted")
    for classes, style in ((plane.truth, "solid"), (plane.prediction, (0, (3, 2)))):
        for value in [] if classes is None else np.unique(classes[classes > 0]):
            _outline(ax, classes == value, int(value), style)
    _mark_sides(ax, plane.sides)
    return figure


def _plane(number: int | None, volumes: Sequence[np.ndarray | None], affine: np.ndarray | None) -> Plane:
    cut: Any = ... if number is None else (..., number)
    # the rows of a picture go down, as the sides of a patient would that are inferior
    codes = ["", "I"] if affine is None else _sides(affine)
    turned = tuple(axis for axis, code in enumerate(codes) if _is_turned(axis, code))
    image, truth, prediction, unsure = (None if it is None else np.flip(np.asarray(it[cut]), turned) for it in volumes)
    shown = [_opposite(code) if axis in turned else code for axis, code in enumerate(codes)]
    sizes: Any = (1.0, 1.0) if affine is None else tuple(nibabel.affines.voxel_sizes(affine)[:2].tolist())
    sides = ("", "") if affine is None else (shown[0], shown[1])
    place = "" if number is None else f"slice {number + 1} of {_depth(volumes)}"
    return Plane(image, truth, prediction, unsure, sizes, sides, place)  # type: ignore[arg-type]


def _is_turned(axis: int, code: str) -> bool:
    """Say whether an axis is drawn the other way round; what slants between left and right is drawn by these."""
    lateral = "".join(letter for letter in code if letter in "LR") if axis == 0 else ""
    deciding = lateral or code
    return deciding[:1] in tuple(_TURNED[axis])


def _sides(affine: np.ndarray) -> list[str]:
    """Return to where the two axes of a plane point, the nearest side first."""
    letters = []
    for axis in range(2):
        cosines = affine[:3, axis] / np.linalg.norm(affine[:3, axis])
        order = np.argsort(-np.abs(cosines), kind="stable")
        strong = [i for rank, i in enumerate(order) if rank == 0 or abs(cosines[i]) >= _SLANTED]
        letters.append("".join("LPI"[i] if cosines[i] < 0 else "RAS"[i] for i in strong))
    return letters


def _opposite(side: str) -> str:
    return "".join(_OPPOSITE[letter] for letter in side)


def _depth(volumes: Sequence[np.ndarray | None]) -> int:
    return int(next(volume.shape[-1] for volume in volumes if volume is not None))


def _outline(ax: Axes, mask: np.ndarray, value: int, style: Any) -> None:
    color = structure_color(value)
    lines = ax.contour(mask.T, levels=[0.5], colors=[color], linewidths=2, linestyles=[style])
    lines.set_path_effects([withStroke(linewidth=3, foreground="black", alpha=0.4)])
    if style == "solid":
        columns, rows = np.nonzero(mask)
        last = int(columns.argmax())
        text = ax.text(columns[last] + 1, rows[last], str(value), color="white", fontsize=8, va="center")
        text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _mark_sides(ax: Axes, sides: tuple[str, str]) -> None:
    right, top = sides
    marks = [(0.99, 0.5, "right", right), (0.01, 0.5, "left", _opposite(right))]
    marks += [(0.5, 0.97, "center", top), (0.5, 0.03, "center", _opposite(top))]
    for x, y, align, side in marks:
        text = ax.text(x, y, side, transform=ax.transAxes, color="white", fontsize=11, ha=align, va="center")
        text.set_path_effects([withStroke(linewidth=2, foreground="black")])
