# SPDX-License-Identifier: Apache-2.0
"""Planes of a case lie as a radiologist expects them, and say where they are from."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from metassl_monai.report.contours import contour_figure, planes_of
from metassl_monai.report.palette import structure_color


def volume(*, at: slice = slice(2, 9)) -> np.ndarray:
    classes = np.zeros((8, 10, 12), dtype=int)
    classes[2:5, 2:6, at] = 1
    classes[5:7, 2:6, at] = 2
    return classes


def test_slices_are_spread_evenly_over_what_is_annotated() -> None:
    truth = volume()
    planes = planes_of(truth.astype(float), np.zeros_like(truth), truth, affine=np.eye(4))
    assert [plane.place for plane in planes] == ["slice 4 of 12", "slice 6 of 12", "slice 8 of 12"]
    (only,) = planes_of(truth.astype(float), volume(at=slice(4, 5)), affine=np.eye(4))
    assert only.place == "slice 5 of 12"
    empty = np.zeros_like(truth)
    assert len(planes_of(empty.astype(float), empty, affine=np.eye(4))) == 3


@pytest.mark.parametrize(
    ("axes", "sides", "turned"),
    [
        ([[-1, 0, 0], [0, 1, 0], [0, 0, 1]], ("L", "A"), []),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], ("L", "A"), [0]),
        ([[1, 0, 0], [0, -1, 0], [0, 0, 1]], ("L", "A"), [0, 1]),
        ([[0, 1, 0], [0, 0, -1], [1, 0, 0]], ("P", "S"), [0, 1]),
        ([[0.6, 0, 0.8], [0, 1, 0], [-0.8, 0, 0.6]], ("IL", "A"), [0]),
    ],
    ids=["LAS", "RAS", "RPS", "AIR", "slanted: right and superior"],
)
def test_the_patients_left_is_at_the_right(axes: Any, sides: tuple[str, str], turned: list[int]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array(axes, dtype=float).T * [1.5, 1.25, 8]
    image = np.random.default_rng(0).random((8, 10, 12))
    plane = planes_of(image, volume(), affine=affine)[0]
    assert plane.sides == sides
    assert plane.spacing == pytest.approx((1.5, 1.25))
    assert np.array_equal(plane.image, np.flip(image[..., 3], turned))
    assert np.array_equal(plane.prediction, np.flip(volume()[..., 3], turned))


def test_a_picture_has_its_first_row_above_and_no_sides() -> None:
    image = np.arange(12.0).reshape(3, 4)
    (plane,) = planes_of(image, np.zeros((3, 4)))
    assert (plane.sides, plane.place, plane.spacing) == (("", ""), "", (1, 1))
    assert np.array_equal(plane.image, image[:, ::-1])


def test_contours_have_the_colors_of_structures_and_the_prediction_is_dashed() -> None:
    truth = volume()
    plane = planes_of(truth.astype(float), np.roll(truth, 1, 0), truth, truth == 2, np.eye(4), count=1)[0]
    figure = contour_figure(plane)
    (ax,) = figure.axes
    drawn = [(to_hex(it.get_edgecolor()[0]), it.get_linestyle()[0][1]) for it in ax.collections[2:]]
    assert [color for color, _ in drawn] == [structure_color(1), structure_color(2)] * 2
    assert [dashes is None for _, dashes in drawn] == [True, True, False, False]
    assert [text.get_text() for text in ax.texts] == ["1", "2", "L", "R", "A", "P"]
    figure.savefig(io.BytesIO(), format="png")
    width, height = figure.get_size_inches()
    assert width / height == pytest.approx(0.8)
