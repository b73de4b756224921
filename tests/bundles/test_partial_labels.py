# SPDX-License-Identifier: Apache-2.0
"""Volumes of which every third slice is annotated and the rest holds 255: training, inference, both evaluations."""

from __future__ import annotations

import json

import itk
import nibabel
import numpy as np
import pytest
from PIL import Image

from metassl_monai.apps.evaluate import evaluate_predictions
from metassl_monai.data import check_datalist, make_phantom, prediction_path
from metassl_monai.ignore import IGNORE

PHANTOM, LA = "phantom_segmentation", "la_atrium_mri_segmentation"
DIGESTPATH = "digestpath_pathology_segmentation"
MISSING = 255
STRUCTURES = ("right ventricle", "myocardium", "left ventricle")


def change(file, change_label):
    """Change an annotation on disk."""
    image = nibabel.load(file)
    label = np.array(image.dataobj)
    change_label(label)
    nibabel.save(nibabel.Nifti1Image(label, image.affine), file)


def forget(label):
    """Keep every third slice."""
    label[..., np.arange(label.shape[-1]) % 3 != 1] = MISSING


def name_ignore(datalist, *lists, value=MISSING):
    """Let a datalist name the value, and return the annotations of these lists."""
    content = json.loads(datalist.read_text())
    datalist.write_text(json.dumps(content | {"ignore": value}))
    return [datalist.parent / item["label"] for key in lists for item in content[key]]


def paths(datalist):
    return {"dataset_dir": str(datalist.parent), "datalist": str(datalist)}


@pytest.fixture
def sparse(tmp_path):
    datalist = make_phantom(tmp_path / "data", cases=7, labeled=2, validation=2, test=1, size=(32, 32, 6), seed=3)
    for file in name_ignore(datalist, "labeled", "validation"):
        change(file, forget)
    return datalist


def slow_dice(prediction, label, value):
    """By hand, on the annotated voxels alone."""
    known = label != MISSING
    prediction, truth = prediction[known] == value, label[known] == value
    return 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())


@pytest.mark.parametrize("method", ["cps", "bcp"])
def test_training_inference_and_evaluation_of_a_sparse_phantom(method, sparse, workflow, refusal, tmp_path):
    overlays = [] if method == "cps" else [method]
    assert refusal(workflow(PHANTOM, ["train", *overlays], **paths(sparse)), "training") is None
    network = {"ckpt_path": str(tmp_path / "out" / "models" / "model.pt")}
    infer = workflow(PHANTOM, ["inference"], "infer", **paths(sparse), **network, split="validation")
    assert refusal(infer) is None
    evaluate = workflow(PHANTOM, ["train", *overlays, "evaluate"], **paths(sparse))
    assert refusal(evaluate, "evaluating") is None
    found = evaluate_predictions(sparse, sparse.parent, "validation", tmp_path / "out" / "predictions", tmp_path / "t")
    stored = json.loads((tmp_path / "out" / "evaluation_validation" / "metrics.json").read_text())["cases"]
    by_case = {(row["case"], row["structure"]): row["dice"] for row in found}
    for item in json.loads(sparse.read_text())["validation"]:
        file = prediction_path(sparse.parent / item["image"], sparse.parent, tmp_path / "out" / "predictions")
        prediction = np.asarray(nibabel.load(file).dataobj)
        label = np.asarray(nibabel.load(sparse.parent / item["label"]).dataobj)
        assert set(np.unique(prediction)) <= {0, 1, 2, 3}
        assert set(np.unique(label)) == {0, 1, 2, 3, MISSING}
        for value, structure in enumerate(STRUCTURES, start=1):
            expected = pytest.approx(slow_dice(prediction, label, value), abs=1e-9)
            assert by_case[item["case"], structure] == expected
    for mine, theirs in zip(found, stored, strict=True):
        assert theirs["dice"] == pytest.approx(mine["dice"], abs=1e-5)


def test_slices_without_annotation_are_unlabeled_slices(sparse, workflow):
    parser = workflow(PHANTOM, ["train"], **paths(sparse)).parser
    labeled, unlabeled = (parser.get_parsed_content(f"train::{name}") for name in ("dataset", "unlabeled_dataset"))
    assert labeled.index == [(0, 1), (0, 4), (1, 1), (1, 4)]
    assert len(labeled.unannotated) == 2 * 4
    assert len(unlabeled) == 2 * 6 + 2 * 4
    assert all(item["label"].min() == 0 for item in labeled)
    assert all(set(item) == {"image"} for item in unlabeled)
    assert unlabeled.volumes[2]["image"].equal(labeled.volumes[0]["image"])
    assert parser.get_parsed_content("train::trainer").unwrapped_method.partial_labels


def test_most_of_a_slice_may_be_missing(sparse, workflow, refusal, tmp_path):
    for file in name_ignore(sparse, "labeled"):
        change(file, lambda label: label[:, 14:].fill(MISSING))
    assert refusal(workflow(PHANTOM, ["train", "mean_teacher"], **paths(sparse)), "training") is None
    history = (tmp_path / "out" / "history.csv").read_text()
    assert "loss/unannotated/network" in history


@pytest.mark.parametrize("overlays", [[], ["plain", "mean_teacher"]])
def test_patches_of_a_sparse_volume(overlays, own_copy, workflow, refusal):
    datalist = own_copy(LA)
    for file in name_ignore(datalist, "labeled", "validation", value=7):
        image = itk.imread(str(file))
        voxels = itk.array_view_from_image(image)
        voxels[np.arange(len(voxels)) % 10 != 5] = 7  # 255 is the left atrium there
        itk.imwrite(image, str(file))
    assert refusal(workflow(LA, ["train", *overlays], **paths(datalist)), "training") is None


def test_pictures_with_unknown_pixels(own_copy, workflow, refusal):
    """Masks of two classes by a threshold: 128 in the left half of a mask means that nobody looked there."""
    datalist = own_copy(DIGESTPATH)
    content = json.loads(datalist.read_text())
    for item in content["labeled"]:
        file = datalist.parent / item["label"]
        mask = np.array(Image.open(file).convert("L"))
        mask[:, : mask.shape[1] // 2] = 128
        Image.fromarray(mask).save(file.with_suffix(".png"))
        item["label"] = str(file.with_suffix(".png").relative_to(datalist.parent))
    datalist.write_text(json.dumps(content | {"ignore": 128}))
    parser = workflow(DIGESTPATH, ["train"], **paths(datalist)).parser
    labels = [item["label"] for item in parser.get_parsed_content("train::dataset").tiles]
    assert {int(value) for label in labels for value in label.unique()} == {IGNORE, 0, 1}
    assert refusal(workflow(DIGESTPATH, ["train", "supervised"], **paths(datalist)), "training") is None


def test_the_check_knows_the_value_where_the_datalist_names_it(sparse):
    assert check_datalist(sparse, sparse.parent) == []
    content = json.loads(sparse.read_text())
    del content["ignore"]
    sparse.write_text(json.dumps(content))
    problems = check_datalist(sparse, sparse.parent)
    assert len(problems) == 4
    assert {problem.cause for problem in problems} == {"label values 255 are not in `labels` (0 to 3)"}
    assert all("`ignore`" in problem.remedy for problem in problems)


def test_a_volume_that_nobody_annotated_is_no_labeled_case(sparse):
    [first, *_] = name_ignore(sparse, "labeled")
    change(first, lambda label: label.fill(MISSING))
    [problem] = check_datalist(sparse, sparse.parent)
    assert problem.file == str(first)
    assert problem.cause == "nobody annotated a voxel of it: all are 255, the `ignore` of the datalist"
    assert problem.remedy == "annotate it, or list the image in `unlabeled`"
