# SPDX-License-Identifier: Apache-2.0
"""The sliding windows of the bundles of volumes: few and Gaussian by default, the papers' by an overlay."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from metassl_monai.bundle.locate import bundle_path, config_files
from metassl_monai.experiments.definition import read_experiment

from .conftest import BRATS, LA, PANCREAS

PATCH = {LA: (112, 112, 80), BRATS: (96, 96, 96), PANCREAS: (96, 96, 96)}
PAPERS = {LA: (18, 18, 4), BRATS: (64, 64, 64), PANCREAS: (16, 16, 16)}
VOLUME = {LA: (199, 143, 88), BRATS: (145, 170, 98), PANCREAS: (150, 131, 90)}
EVALUATIONS = {LA: (12, 54), BRATS: (12, 12), PANCREAS: (4, 20)}
"""Windows of that volume: by default, and at the papers' strides."""
ROADS = {"validate::inferer": (["train"], ["train", "evaluate"]), "inferer": (["inference"],)}


def inferers(bundle: str, *overlays: str):
    """Yield the inferer of validation, of evaluation and of inference."""
    for name, roads in ROADS.items():
        for road in roads:
            parser = ConfigParser()
            parser.read_config([str(file) for file in config_files(bundle_path(bundle), [*road, *overlays])])
            yield parser.get_parsed_content(name)


class Counted:
    """What a window gets depends on its content and on the place within it; counts the windows."""

    def __init__(self) -> None:
        self.windows = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.windows += len(x)
        x = x + torch.linspace(0, 1, x.shape[2])[:, None, None]
        return torch.cat([x, -x], dim=1)


def stitched(volume: Tensor, patch: tuple[int, ...], starts: list[list[int]], weights: Tensor) -> Tensor:
    """Return the weighted mean of all windows, one after the other, as the papers' scripts add up scores."""
    pads = [max(0, side - size) for side, size in zip(patch, volume.shape[2:], strict=True)]
    padded = torch.nn.functional.pad(volume, [end for pad in reversed(pads) for end in (pad // 2, pad - pad // 2)])
    score, count = torch.zeros(1, 2, *padded.shape[2:]), torch.zeros(padded.shape)
    for corner in itertools.product(*starts):
        place = (..., *(slice(start, start + side) for start, side in zip(corner, patch, strict=True)))
        score[place] += weights * Counted()(padded[place])
        count[place] += weights
    inner = (slice(pad // 2, pad // 2 + size) for pad, size in zip(pads, volume.shape[2:], strict=True))
    return (score / count)[(..., *inner)]


def corners(size: int, side: int, stride: int) -> list[int]:
    """Return where windows begin along an axis in the papers' scripts: the last one is moved back to the border."""
    size = max(size, side)
    return [min(stride * i, size - side) for i in range(math.ceil((size - side) / stride) + 1)]


def gaussian(patch: tuple[int, ...]) -> Tensor:
    """Return weights of standard deviation an eighth of the side, and no smaller than a thousandth."""
    bells = [torch.exp(-0.5 * ((torch.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) for side in patch]
    return (bells[0][:, None, None] * bells[1][:, None] * bells[2]).clamp_min(1e-3)


@pytest.mark.parametrize("overlays", [[], ["paper_strides"]], ids=["default", "papers"])
@pytest.mark.parametrize("bundle", [LA, BRATS, PANCREAS])
def test_validation_evaluation_and_inference_have_the_windows_of_the_protocol(bundle, overlays):
    patch = PATCH[bundle]
    volume = torch.randn(1, 1, *VOLUME[bundle], generator=torch.Generator().manual_seed(0))
    strides = PAPERS[bundle] if overlays else [side * 3 // 4 for side in patch]
    starts = [corners(*axis) for axis in zip(VOLUME[bundle], patch, strides, strict=True)]
    expected = stitched(volume, patch, starts, torch.ones(patch) if overlays else gaussian(patch))
    evaluations = EVALUATIONS[bundle][len(overlays)]
    assert math.prod(map(len, starts)) == evaluations
    for inferer in inferers(bundle, *overlays):
        network = Counted()
        torch.testing.assert_close(inferer(volume, network), expected, atol=1e-4, rtol=1e-4)
        assert network.windows == evaluations


@pytest.mark.parametrize("small", [[], ["la_small"]])
def test_the_papers_windows_are_those_of_the_patch_in_use(small):
    """The size for a CPU changes the windows, not their strides, wherever it is given."""
    for overlays in ([*small, "paper_strides"], ["paper_strides", *small]):
        for inferer in inferers(LA, *overlays):
            network = Counted()
            inferer(torch.zeros(1, 1, 130, 112, 84), network)
            assert network.windows == (2 * 1 * 2 if not small else 5 * 4 * 10)


def test_the_experiment_of_the_published_table_scores_by_the_papers_windows():
    for cell in read_experiment(bundle_path(LA) / "experiments" / "la_paper.json"):
        for files, name in ((cell.configs(), "validate::inferer"), (cell.inference_configs(), "inferer")):
            parser = ConfigParser()
            parser.read_config([str(file) for file in files])
            inferer, network = parser.get_parsed_content(name), Counted()
            inferer(torch.zeros(1, 1, 130, 112, 84), network)
            assert network.windows == 2 * 1 * 2
            assert inferer.mode == "constant"
