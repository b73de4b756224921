# SPDX-License-Identifier: Apache-2.0
"""Figures have the panels, rows, colors and legends that they promise."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from metassl_monai.report import NO_REGION, methods_figure, overlay_figure, quadripartition_figure
from metassl_monai.report.palette import REGION_COLORS, structure_colormap


def maps(count: int, classes: int) -> list[np.ndarray]:
    return [np.arange(30.0).reshape(5, 6) % classes for _ in range(count)]


def colors(ax: Any, layer: int = 1) -> np.ndarray:
    """RGBA of each pixel of an image of a panel, as ``(H, W, 4)``; alpha before blending."""
    image = ax.images[layer]
    return image.cmap(image.norm(image.get_array())).swapaxes(0, 1)


@pytest.mark.parametrize(("truths", "regions", "headings"), [
    (True, True, ["image", "hidden truth", "reference", "prediction", "regions"]),
    (False, True, ["image", "reference", "prediction", "regions"]),
    (True, False, ["image", "hidden truth", "reference", "prediction"]),
])  # fmt: skip
def test_quadripartition_has_a_panel_for_each_thing(truths: bool, regions: bool, headings: list[str]) -> None:
    figure = quadripartition_figure(
        maps(2, 30),
        maps(2, 3) if truths else None,
        maps(2, 3),
        maps(2, 3),
        maps(2, 4) if regions else None,
        ["epoch 1", "epoch 9"],
        "title",
    )
    assert [ax.get_title() for ax in figure.axes] == [*headings, *[""] * len(headings)]
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["epoch 1", "epoch 9"]
    assert [len(ax.images) for ax in figure.axes] == [1, *[2] * (len(headings) - 1)] * 2
    assert len(figure.legends) == regions
    assert figure.get_suptitle() == "title"
    figure.savefig(io.BytesIO(), format="png")


def test_overlay_is_the_view_of_annotations() -> None:
    figure = overlay_figure(maps(1, 30), maps(1, 3), maps(1, 3), maps(1, 4), truth_name="annotation")
    assert [ax.get_title() for ax in figure.axes] == ["image", "annotation", "prediction", "regions"]
    assert [ax.get_title() for ax in overlay_figure(maps(1, 30), maps(1, 3), maps(1, 3)).axes][1] == "truth"


def test_methods_stand_side_by_side_with_one_color_a_class() -> None:
    columns = {"annotation": maps(2, 3), "plain": maps(2, 2), "paper": maps(2, 4)}
    figure = methods_figure(maps(2, 30), columns, ["case a", "case b"], "title")
    assert [ax.get_title() for ax in figure.axes] == ["image", *columns, *[""] * 4]
    assert [ax.texts[0].get_text() for ax in figure.axes[::4]] == ["case a", "case b"]
    assert figure.get_suptitle() == "title"
    assert not figure.legends
    for ax, column in zip(figure.axes[5:], columns.values(), strict=True):
        assert np.array_equal(ax.images[1].get_array(), column[1].T)
    annotation, plain = colors(figure.axes[1]), colors(figure.axes[2])
    assert np.array_equal(annotation[columns["annotation"][0] == 1][0], plain[columns["plain"][0] == 1][0])


def test_regions_have_their_colors_and_the_image_shows_where_there_is_none() -> None:
    regions = maps(1, 4)
    regions[0][2, 3] = NO_REGION
    figure = overlay_figure(maps(1, 30), maps(1, 3), maps(1, 3), regions)
    found = colors(figure.axes[3])
    for region, color in enumerate(REGION_COLORS.values()):
        assert np.allclose(found[regions[0] == region], to_rgba(color))
    assert found[2, 3, 3] == 0
    assert [text.get_text()[:2] for text in figure.legends[0].get_texts()] == list(REGION_COLORS)


@pytest.mark.parametrize("classes", [2, 4, 9, 30])
def test_every_structure_has_a_color_of_its_own_and_background_none(classes: int) -> None:
    figure = overlay_figure(maps(1, 30), maps(1, classes), maps(1, 2))
    found, labels = colors(figure.axes[1]), maps(1, classes)[0]
    assert (found[labels == 0, 3] == 0).all()
    shown = {tuple(found[labels == value][0]) for value in range(1, classes)}
    assert len(shown) == classes - 1
    # the same class has the same color in a panel that lacks the others
    prediction, few = colors(figure.axes[2]), maps(1, 2)[0]
    assert tuple(prediction[few == 1][0]) in shown


def test_maps_without_any_structure_can_be_drawn() -> None:
    figure = overlay_figure(maps(1, 30), maps(1, 1), maps(1, 1))
    assert (colors(figure.axes[1])[..., 3] == 0).all()


def test_palette_is_long_and_begins_anew_when_it_ends() -> None:
    names = structure_colormap(100).colors
    assert len(set(names[1:68])) == 67
    assert names[68:70] == names[1:3]
