# SPDX-License-Identifier: Apache-2.0
"""From file to file: image, annotation and prediction stay within 0.05 voxel of each other in every bundle.

The known edge is a slanted plane: where two of its copies lie `s` voxels apart along an axis, the volumes behind them
differ by `s` times the area of the edge across that axis, however finely `s` divides a voxel.
"""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.utils import set_determinism
from PIL import Image

from metassl_monai.bundle.locate import bundle_names
from metassl_monai.data import load_datalist, prediction_path, read_scan
from metassl_monai.data.geometry import grid_distance

DIGESTPATH = "digestpath_pathology_segmentation"
BUNDLES = bundle_names()
PLANES = ("abdomenct1k_ct_segmentation", "acdc_cardiac_mri_segmentation", "phantom_segmentation")
TOLERANCE = 0.05


def shape_of(bundle):
    """Sizes that are no multiple of any network's, so that what resizes has to interpolate."""
    if bundle == DIGESTPATH:
        return (61, 53)
    return (61, 53, 3) if bundle in PLANES else (41, 38, 37)


def affine_of(bundle):
    """Oblique, left-handed, anisotropic, far from the origin."""
    turn = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.2837, 1.5773, 8.0 if bundle in PLANES else 1.1319])
    affine[:3, 3] = (120.0, -75.5, 31.25)
    return affine


def distance_to_edge(shape, axis):
    """Signed distance to a slanted plane through the middle, in voxels along the axis."""
    grid = np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in shape), indexing="ij")
    slant = (0.381966, 0.236068, 0.414214)  # irrational, so that no pattern of voxels repeats along the edge
    return grid[axis] + 0.31 + sum(slant[i] * grid[i] for i in range(len(shape)) if i != axis)


def drift(label, other, axis):
    """Mean distance between the edges of two label maps along an axis, in voxels."""
    label, other = (np.asarray(array, dtype=float) for array in (label, other))
    area = float(np.abs(np.diff(label, axis=axis)).sum())
    return (float(label.sum()) - float(other.sum())) / area


def write_case(folder, bundle, name, image, label):
    (folder / name).mkdir(parents=True)
    if bundle == DIGESTPATH:
        # rounded so that what is above the middle stays so
        colors = np.repeat(np.rint(image.T[..., None] + 0.5), 3, -1).astype(np.uint8)
        Image.fromarray(colors).save(folder / name / "image.png")
        Image.fromarray((label.T * 255).astype(np.uint8)).save(folder / name / "label.png")
        suffix = "png"
    else:
        for kind, array in (("image", image.astype(np.float32)), ("label", label.astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, affine_of(bundle)), folder / name / f"{kind}.nii.gz")
        suffix = "nii.gz"
    return {"image": f"{name}/image.{suffix}", "label": f"{name}/label.{suffix}", "subject": name, "case": name}


def write_data(folder, bundle, image, label, labels, orientation):
    cases = {name: write_case(folder, bundle, name, image, label) for name in ("a", "b", "c")}
    hidden = {key: value for key, value in cases["b"].items() if key != "label"}
    lists = {"labeled": [cases["a"]], "unlabeled": [hidden], "validation": [cases["c"]], "test": [], "monitor": []}
    extra = {"label_threshold": 128} if bundle == DIGESTPATH else {"orientation": orientation} if orientation else {}
    (folder / "datalist.json").write_text(json.dumps({"labels": labels, **lists, **extra}))
    return {"dataset_dir": str(folder), "datalist": str(folder / "datalist.json")}


@pytest.fixture
def edge(tmp_path, workflow):
    """``edge(bundle, axis, orientation)``: data with an edge across an axis, as overrides of a bundle; the annotation.

    The image is a ramp across the edge, where every interpolation is exact, between two plateaus, which tell what any
    linear map of intensities makes of the edge: the middle between minimum and maximum.
    """

    def write(bundle, axis, orientation=None):
        config = workflow(bundle, ["train"]).parser.get()
        distance = distance_to_edge(shape_of(bundle), axis)
        low, high = config.get("hu_window", (52, 148))
        image = (low + high) / 2 + (high - low) / 12 * distance.clip(-6, 6)
        sizes = {"patch_size": [32, 32, 32]} if "patch_size" in config else {"spatial_size": [44, 44]}
        written = write_data(tmp_path / f"axis{axis}", bundle, image, distance > 0, config["labels"], orientation)
        return sizes | written, distance > 0

    return write


# of the datalist, against files in LAS: axes that change places and direction
TURNED = [(bundle, orientation) for bundle in BUNDLES for orientation in (None, "PRI")]
TURNED.remove((DIGESTPATH, "PRI"))


def axes_of(bundle):
    return (0, 1) if bundle in (DIGESTPATH, *PLANES) else (0, 1, 2)


def middle(image):
    return float(image[:1].min() + image[:1].max()) / 2


@pytest.mark.parametrize(("bundle", "orientation"), TURNED)
def test_what_is_trained_on_is_aligned(bundle, orientation, edge, workflow):
    """After the deterministic transforms, and after the random ones on average: the edge turns, its drift with it."""
    for axis in axes_of(bundle):
        data, _ = edge(bundle, axis, orientation)
        parser = workflow(bundle, ["train"], **data).parser
        name = "deterministic_transforms" if "deterministic_transforms" in parser["train"] else "preprocessing"
        item = parser.get_parsed_content(f"train::{name}")(parser.get_parsed_content("train::dataset::data")[0])
        level = middle(item["image"])
        image, label = (item[key].float().numpy()[0] for key in ("image", "label"))
        assert abs(turned_drift(image > level, label)) < TOLERANCE
        level = level / 255 if bundle == DIGESTPATH else level
        assert abs(mean_drift(parser.get_parsed_content("train::dataset"), level)) < TOLERANCE


def test_stronger_random_transforms_keep_the_annotation_on_its_image(edge, workflow):
    data, _ = edge("acdc_cardiac_mri_segmentation", 0)
    unchanged = {f"train::random_transforms::transforms::{i}::prob": 0.0 for i in (2, 3, 4)}  # brightness, blur, noise
    parser = workflow("acdc_cardiac_mri_segmentation", ["train", "augmented"], **data, **unchanged).parser
    item = parser.get_parsed_content("train::preprocessing")(parser.get_parsed_content("train::dataset::data")[0])
    assert abs(mean_drift(parser.get_parsed_content("train::dataset"), middle(item["image"]))) < TOLERANCE


def mean_drift(dataset, level):
    set_determinism(seed=0)
    drawn = [dataset[i % len(dataset)] for i in range(60)]
    drifts = [turned_drift(item["image"].numpy()[0] > level, item["label"].numpy()[0]) for item in drawn]
    drifts = [drift for drift in drifts if drift is not None]
    assert len(drifts) > 20
    return np.mean(drifts)


def turned_drift(image, label):
    """The drift across whichever axis the edge lies now; None where a crop shows little of it."""
    assert set(np.unique(label)) <= {0, 1}
    if not 0.2 < label.mean() < 0.8:
        return None
    return drift(label, image, max(range(label.ndim), key=lambda axis: np.abs(np.diff(label, axis=axis)).sum()))


class Threshold(torch.nn.Module):
    """A network that calls class 1 what is brighter than a level in the first channel."""

    def __init__(self, num_classes, level):
        super().__init__()
        self.num_classes = num_classes
        self.level = torch.nn.Parameter(torch.tensor(float(level)))

    def forward(self, x):
        one = 10 * (x[:, :1] - self.level)
        return torch.cat([torch.zeros_like(one), one, *[torch.full_like(one, -1e4)] * (self.num_classes - 2)], 1)


def thresholded(parser, item, path):
    """A network that finds the edge in the preprocessed image, and its checkpoint."""
    key = "validate::preprocessing" if "validate" in parser.get() else "preprocessing"
    network = Threshold(len(parser["labels"]), middle(parser.get_parsed_content(key)(item)["image"]))
    torch.save(network.state_dict(), path)
    return {"network_def": network, "ckpt_path": str(path)}


@pytest.mark.parametrize(("bundle", "orientation"), TURNED)
def test_a_prediction_lies_where_its_image_lies(bundle, orientation, edge, workflow, tmp_path):
    """The real inference: the file that comes out has the edge where the image's file has it, in the world, too."""
    for axis in axes_of(bundle):
        data, label = edge(bundle, axis, orientation)
        image = load_datalist(data["datalist"], "validation", data["dataset_dir"])[0]["image"]
        parser = workflow(bundle, ["inference"], "infer", **data).parser
        data |= thresholded(parser, {"image": image}, tmp_path / "net.pt") | {
            "output_dir": str(tmp_path / f"out{axis}")
        }
        inference = workflow(bundle, ["inference"], "infer", split="validation", **data)
        inference.initialize()
        inference.run()
        file = prediction_path(image, data["dataset_dir"], tmp_path / f"out{axis}" / "predictions")
        prediction = read_scan(file)
        assert tuple(prediction.shape) == label.shape
        assert abs(drift(label, prediction.numpy(), axis)) < TOLERANCE
        assert grid_distance(read_scan(image).affine, prediction.affine, label.shape) < 1e-4


@pytest.mark.parametrize(("bundle", "orientation"), TURNED)
def test_validation_scores_a_prediction_in_its_annotations_place(bundle, orientation, edge, workflow, tmp_path):
    for axis in axes_of(bundle):
        data, label = edge(bundle, axis, orientation)
        parser = workflow(bundle, ["train", "supervised", "evaluate"], **data).parser
        item = parser.get_parsed_content("validate::dataset::data")[0]
        data |= thresholded(parser, item, tmp_path / "net.pt")
        parser = workflow(bundle, ["train", "supervised", "evaluate"], **data).parser
        evaluator = parser.get_parsed_content("validate::evaluator")
        evaluator.run()
        [output] = evaluator.state.output
        found, truth = (foreground(output[key], label.ndim) for key in ("pred", "label"))
        assert found.shape == truth.shape
        assert abs(turned_drift(found, truth)) < TOLERANCE


def foreground(output, ndim):
    """Of a label map (1, ...) or its one-hot form (C, ...)."""
    labels = output.argmax(0) if len(output) > 1 else output[0]
    assert labels.ndim == ndim
    return (labels > 0).numpy()
