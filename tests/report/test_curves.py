# SPDX-License-Identifier: Apache-2.0
"""Curves show the numbers of the history, each where it belongs."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from metassl_monai.losses import RegionWeights
from metassl_monai.report import history_figure, read_history, weight_figure
from metassl_monai.report.palette import REGION_COLORS, structure_color

NAN = math.nan
HISTORY = {
    "epoch": [1, 2, 3],
    "pixels/unlabeled/second/DS": [5.0, 6.0, 7.0],
    "pixels/unlabeled/second/UC": [NAN, 2.0, 3.0],
    "pixels/unlabeled/first/DC": [1.0, NAN, 3.0],
    "hidden/first/accuracy/UC": [0.1, 0.2, 0.3],
    "hidden/first/accuracy_foreground/UC": [0.4, 0.5, 0.6],
    "hidden/first/pixels/UC": [4.0, 5.0, 6.0],
    "loss": [3.0, 2.0, 1.0],
}


def test_a_panel_holds_what_differs_in_the_last_part() -> None:
    figure = history_figure(HISTORY, "pixels", "counts", "voxels")
    assert [ax.get_title() for ax in figure.axes] == ["voxels: unlabeled, first", "voxels: unlabeled, second"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["voxels"] * 2
    lines = figure.axes[1].lines
    assert [line.get_label() for line in lines] == ["UC", "DS"]
    assert lines[0].get_xydata().tolist() == [[2, 2], [3, 3]]
    assert lines[1].get_xydata().tolist() == [[1, 5], [2, 6], [3, 7]]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 1], [3, 3]]
    assert to_hex(lines[1].get_color()) == REGION_COLORS["DS"]
    figure.savefig(io.BytesIO(), format="png")


def test_a_star_stands_for_anything() -> None:
    figure = history_figure(HISTORY, "hidden/*/accuracy", "", "")
    assert [ax.get_title().replace("\n", " ") for ax in figure.axes] == [
        "hidden labels: first, right references",
        "hidden labels: first, right references in the foreground",
    ]


def test_curves_of_classes_have_the_names_and_colors_of_pictures() -> None:
    history = {"epoch": [1], "threshold/a/0": [0.9], "threshold/a/1": [0.8], "threshold/a/2": [0.7]}
    figure = history_figure(history, "threshold", "", "", {"0": "background", "1": "right ventricle", "2": "wall"})
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["background", "right ventricle", "wall"]
    assert [to_hex(line.get_color()) for line in lines[1:]] == [structure_color(1), structure_color(2)]
    assert len({line.get_marker() for line in lines}) == 3
    history = {"epoch": [1], "val_dice/right_ventricle": [0.8]}
    (line,) = history_figure(history, "val_dice", "", "", {"1": "right ventricle"}).axes[0].lines
    assert to_hex(line.get_color()) == structure_color(1)


@pytest.mark.parametrize("panels", [1, 3, 4, 7])
def test_there_are_no_empty_panels(panels: int) -> None:
    history = {"epoch": [1.0], **{f"a/{i}/UC": [1.0] for i in range(panels)}}
    assert len(history_figure(history, "a/", "", "").axes) == panels


def test_a_metric_without_values_and_one_without_parts_can_be_drawn() -> None:
    figure = history_figure({"epoch": [1, 2], "loss": [NAN, NAN]}, "loss", "", "")
    assert figure.axes[0].lines[0].get_xydata().tolist() == []
    figure.savefig(io.BytesIO(), format="png")


def test_an_unknown_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="no metric begins with 'nothing'"):
        history_figure(HISTORY, "nothing", "", "")


def test_a_history_is_read_with_its_gaps(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,loss,late\n1,0.5,\n2,0.25,1e-3\n")
    np.testing.assert_equal(
        read_history(tmp_path / "history.csv"), {"epoch": [1, 2], "loss": [0.5, 0.25], "late": [NAN, 1e-3]}
    )


def test_weights_are_those_of_the_losses() -> None:
    figure = weight_figure(lambda u, beta: np.exp(-(u**beta)), betas=(1, 3), deltas=(0.2, 0.6))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines) == ["β = 1", "β = 3", "δ = 0.2", "δ = 0.6"]
    assert lines["β = 1"].get_xydata()[[0, -1]].tolist() == [[0, 1], [2, pytest.approx(math.exp(-2))]]
    for delta in (0.2, 0.6):
        x, y = lines[f"δ = {delta}"].get_data()
        assert x.tolist() == pytest.approx([0, delta, 2 * delta, 3 * delta])
        assert y.tolist() == pytest.approx(sorted(RegionWeights(delta)().tolist(), reverse=True), rel=1e-6)
    figure.savefig(io.BytesIO(), format="png")
