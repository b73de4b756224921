# SPDX-License-Identifier: Apache-2.0
"""Colors can be told apart by color-blind readers and in print, and be seen where they are drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab

from metassl_monai.report.palette import REGION_COLORS, structure_color

# Machado, Oliveira and Fernandes (IEEE TVCG 15, 2009), severity 1.0, on linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
STRUCTURES = [structure_color(value) for value in range(1, 8)]


def linear(color: str) -> np.ndarray:
    values = np.array(to_rgb(color))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def seen(color: str, matrix: np.ndarray) -> np.ndarray:
    """The color in CIELAB as somebody with this color vision sees it."""
    values = np.clip(np.asarray(matrix) @ linear(color), 0, 1)
    encoded = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return rgb2lab(encoded[None, None])[0, 0]


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("colors", [STRUCTURES[:3], list(REGION_COLORS.values())], ids=["structures", "regions"])
def test_colors_differ_for_every_reader(kind: str, colors: list[str]) -> None:
    matrix = np.asarray(BLINDNESS[kind])
    for one, other in itertools.combinations(colors, 2):
        assert np.linalg.norm(seen(one, matrix) - seen(other, matrix)) > 20, (one, other)


@pytest.mark.parametrize("color", STRUCTURES)
@pytest.mark.parametrize("ground", ["#ffffff", "#000000"])
def test_contours_and_curves_are_seen_on_white_paper_and_on_black_images(color: str, ground: str) -> None:
    lights = sorted([luminance(color), luminance(ground)])
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 3  # WCAG 2.1, 1.4.11


def test_regions_get_darker_so_that_a_gray_print_tells_them_apart() -> None:
    lights = [luminance(color) for color in REGION_COLORS.values()]
    assert all((a + 0.05) / (b + 0.05) > 1.8 for a, b in itertools.pairwise(lights))


def test_a_color_means_one_thing() -> None:
    assert not set(STRUCTURES) & set(REGION_COLORS.values())
