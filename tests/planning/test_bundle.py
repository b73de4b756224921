# SPDX-License-Identifier: Apache-2.0
"""From folders of scans to a bundle that trains, segments and scores, whatever the scans look like."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_metadata
from monai.utils import set_determinism
from PIL import Image

from metassl_monai.apps.own_data import prepare_folder
from metassl_monai.apps.train import train_bundle
from metassl_monai.bundle import UserError, locate
from metassl_monai.bundle.command_line import command_mistakes
from metassl_monai.data import DatalistError, prediction_path
from metassl_monai.planning.rules import RULES

SCHEMA = Path(__file__).parents[2].parent / "shared" / "specs" / "meta_schema_20240725.json"
TINY = ("features=[4,8,16,32,64]", "batch_size=2", "iterations=2")


def affine_of(kind):
    """A 2 mm grid, or one of 1 x 1 x 4 mm, in a scanner's strange geometry."""
    if kind == "plain":
        return np.diag([2.0, 2.0, 2.0, 1.0])
    turn = np.array([[-0.96, -0.28, 0.0], [0.28, -0.96, 0.0], [0.0, 0.0, -1.0]])  # oblique and left-handed
    affine = np.eye(4)
    affine[:3, :3] = turn * (1.0, 1.0, 4.0)
    affine[:3, 3] = 30, -20, 11
    return affine


def write_scans(folder, shape, affine, values, labeled=3, cases=6, dtype=np.float64):
    """A bright box of each structure in noise; labels hold raw values."""
    draw = np.random.default_rng(0)
    for name in ("scans", "annotations"):
        (folder / name).mkdir(parents=True)
    for number in range(cases):
        label = np.zeros(shape, dtype)
        corner = [int(draw.integers(2, side // 3)) for side in shape[:2]]
        for place, value in enumerate(values):
            part = slice(corner[0] + 5 * place, corner[0] + 5 * place + 4)
            label[part, corner[1] : corner[1] + 8, shape[2] // 4 : -1] = value
        image = draw.normal(100, 5, shape) + 40 * (label > 0)
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / "scans" / f"s {number}.nii.gz")
        if number < labeled:
            nibabel.save(nibabel.Nifti1Image(label, affine), folder / "annotations" / f"s {number}.nii.gz")
    return folder


def run(bundle, names, kind="training", **overrides):
    files = [str(bundle / "configs" / f"{name}.json") for name in names]
    workflow = ConfigWorkflow(files, workflow_type="train", run_id=kind, logging_file=False, **overrides)
    workflow.initialize()
    workflow.run()
    return workflow


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Few slices, labels 0, 3 and 7 as float64, an oblique left-handed grid."""
    folder = write_scans(tmp_path_factory.mktemp("slices"), (40, 36, 8), affine_of("strange"), (3, 7))
    labels = folder / "annotations"
    prepare_folder(folder / "scans", labels, folder / "bundle", [*TINY, "patch_size=[32,32]"], validation=1)
    return folder / "bundle"


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    folder = write_scans(tmp_path_factory.mktemp("patches"), (36, 34, 32), affine_of("plain"), (1,))
    labels = folder / "annotations"
    prepare_folder(folder / "scans", labels, folder / "bundle", [*TINY, "patch_size=[32,32,32]"], validation=1)
    return folder / "bundle"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for name in ("scans", "annotations"):
        (folder / name).mkdir()
    for number in range(6):
        mask = np.zeros((48, 40), np.uint8)
        mask[10:30, 8:20] = 255
        image = draw.integers(0, 90, (48, 40, 3), dtype=np.uint8) + (mask[..., None] // 2)
        Image.fromarray(image).save(folder / "scans" / f"p{number}.png")
        if number < 3:
            Image.fromarray(mask).save(folder / "annotations" / f"p{number}.png")
    labels = folder / "annotations"
    prepare_folder(folder / "scans", labels, folder / "bundle", [*TINY, "patch_size=[32,32]"], validation=1)
    return folder / "bundle"


def test_a_refused_command_can_be_given_again_once_its_mistake_is_mended(tmp_path):
    folder = write_scans(tmp_path, (40, 36, 8), affine_of("plain"), (1,))
    label = folder / "annotations" / "s 0.nii.gz"
    whole = label.read_bytes()
    label.write_bytes(whole[:100])
    asked = folder / "scans", folder / "annotations", folder / "bundle", [*TINY, "patch_size=[32,32]"]
    with pytest.raises((UserError, DatalistError), match=r"s 0\.nii\.gz"):
        prepare_folder(*asked)
    assert not (folder / "bundle").exists()
    label.write_bytes(whole)
    prepare_folder(*asked)
    assert (folder / "bundle" / "configs" / "train.json").is_file()


def test_a_copied_bundle_trains_in_its_own_folder_or_not_at_all(slices, tmp_path, monkeypatch):
    copied, commands = tmp_path / "copy", []
    shutil.copytree(slices, copied, ignore=shutil.ignore_patterns("models"))
    monkeypatch.setattr(locate, "run_command", commands.append)
    for bundle in (slices, copied):
        train_bundle(str(bundle), [], [])
    assert "--bundle_root" not in commands[0]
    assert commands[1][-2:] == ["--bundle_root", str(copied)]
    monai = ["monai/bundle/__main__.py", "run", "training", "--config_file", str(copied / "configs" / "train.json")]
    [mistake] = command_mistakes(monai)
    assert mistake.endswith(f"was written for {slices}, where this would work: give --bundle_root {copied}.")
    assert list(command_mistakes([*monai, "--bundle_root", str(copied)])) == []


def decisions(bundle):
    return {item["name"]: item["value"] for item in json.loads((bundle / "plan.json").read_text())["decisions"]}


def test_the_plan_follows_the_scans(slices, patches, pictures):
    assert [decisions(bundle)["dimension"] for bundle in (slices, patches, pictures)] == ["slices", "patches", "tiles"]
    assert decisions(slices)["target_spacing"] == [1.0, 1.0, None]
    assert decisions(slices)["orientation"].endswith("S")
    assert decisions(patches)["target_spacing"] == [2.0, 2.0, 2.0]
    assert decisions(pictures)["keep"] == "best"
    assert all(decisions(bundle)["method"] == "bcp" for bundle in (slices, patches, pictures))
    assert [decisions(bundle)["losses"] for bundle in (slices, patches, pictures)] == ["metassl", "plain", "plain"]


def test_the_rate_falls_to_zero_whatever_the_method(slices, patches, pictures):
    for bundle in (slices, patches, pictures):
        configs = {file.stem: json.loads(file.read_text()) for file in (bundle / "configs").glob("*.json")}
        assert configs["train"]["lr_scheduler"]["_target_"].endswith("PolynomialLR")
        assert [name for name, config in configs.items() if "lr_scheduler" in config] == ["train"]


@pytest.mark.parametrize(("kind", "size"), [("slices", [32, 32]), ("patches", [32] * 3), ("pictures", [32, 32])])
def test_strong_augmentation_trains_and_keeps_an_annotation_on_its_image(kind, size, request, tmp_path):
    folder, out = request.getfixturevalue(kind).parent, tmp_path / "bundle"
    settings = [*TINY, f"patch_size={size}", "augmentation=strong", "method=supervised"]
    prepare_folder(folder / "scans", folder / "annotations", out, settings, validation=1)
    workflow = run(out, ["train"], output_dir=str(tmp_path))
    transforms = workflow.parser.get_parsed_content("train::random_transforms").transforms
    names = [type(transform).__name__ for transform in transforms]
    assert {"RandAffined", "RandAdjustContrastd", "RandGaussianSmoothd", "RandGaussianNoised"} <= set(names)
    ball = sum((axis - 20.0) ** 2 for axis in torch.meshgrid(*[torch.arange(40.0)] * len(size), indexing="ij"))
    item = {"image": (ball < 150).float()[None], "label": (ball < 150).float()[None]}
    set_determinism(seed=0)
    for _ in range(10):
        drawn = dict(item)
        for transform in transforms:
            drawn = transform(drawn) if type(transform).__name__ not in names[-4:-1] else drawn
        assert drawn["label"].shape[1:] == tuple(size if kind != "pictures" else (40, 40))
        assert set(drawn["label"].unique().tolist()) <= {0.0, 1.0}
        bright = drawn["image"] > 0.5
        assert (bright != (drawn["label"] == 1)).sum() < 0.05 * bright.sum()


def test_augmentation_follows_method_and_length():
    facts = {"method": "bcp", "iterations": 1999}
    assert RULES["augmentation"][0](facts)[0] == "weak"
    assert RULES["augmentation"][0](facts | {"method": "supervised"})[0] == "strong"
    assert RULES["augmentation"][0](facts | {"iterations": 2000})[0] == "strong"


@pytest.mark.skipif(not SCHEMA.is_file(), reason="the published schema is not here")
@pytest.mark.parametrize("kind", ["slices", "patches", "pictures"])
def test_the_metadata_pass_the_check(kind, request, tmp_path):
    bundle = request.getfixturevalue(kind)
    schema = tmp_path / "schema.json"
    schema.write_text(SCHEMA.read_text())
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("kind", ["slices", "patches", "pictures"])
def test_a_bundle_trains_scores_and_segments_in_each_scans_own_space(kind, request, tmp_path):
    bundle = request.getfixturevalue(kind)
    out = str(tmp_path)
    run(bundle, ["train"], output_dir=out, pretrain_iterations=1)
    network = f"{tmp_path}/models/model.pt"
    run(bundle, ["train", "evaluate"], "evaluating", output_dir=out, ckpt_path=network)
    assert (tmp_path / "evaluation_validation" / "cases.csv").is_file()
    scans = bundle.parent / "scans"
    pattern = "*.png" if kind == "pictures" else "*.nii.gz"
    run(
        bundle,
        ["inference"],
        "inference",
        dataset_dir=str(scans),
        ckpt_path=network,
        output_dir=out,
        image_pattern=pattern,
    )
    for scan in sorted(scans.glob(pattern)):
        prediction = prediction_path(scan, scans, tmp_path / "predictions")
        if kind == "pictures":
            assert Image.open(prediction).size == Image.open(scan).size
            continue
        segmented, original = nibabel.load(prediction), nibabel.load(scan)
        assert segmented.shape == original.shape
        np.testing.assert_allclose(segmented.affine, original.affine, atol=1e-5)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("kind", [pytest.param("slices", marks=SLOW), pytest.param("patches", marks=SLOW), "pictures"])
def test_every_method_trains_whatever_the_default_is(kind, request, tmp_path):
    bundle = request.getfixturevalue(kind)
    skip = {
        "train",
        "inference",
        "metadata",
        "evaluate",
        "tracking",
        "multi_gpu_train",
        "mean_of_two",
        "full_supervised",
    }
    skip |= {"plain", "metassl", "monitor", "hidden_labels", "device_data"}
    methods = sorted(file.stem for file in (bundle / "configs").glob("*.json") if file.stem not in skip)
    assert {"supervised", "mean_teacher", "fixmatch", "cct", "cps", "rdrop", "bcp", "alhvr", "dualnet", "cml"} <= set(
        methods
    )
    for method in methods:
        out = tmp_path / method
        staged = json.loads((bundle / "configs" / f"{method}.json").read_text()).get("first_stage")
        first = {"pretrain_iterations": 1} if staged else {}
        workflow = run(
            bundle, ["train", method, "metassl"], output_dir=str(out), keep="last", check_data=False, **first
        )
        assert workflow.parser["method_name"] == method
        assert (out / "models" / "model.pt").is_file()
        stages = (out / "models" / "pretrained.pt").is_file()
        assert stages == bool(first), method
        if staged:
            assert workflow.parser["pretrain::trainer"]["checkpoint"] == "$@ckpt_dir + '/pretrained_checkpoint.pt'"


def test_an_overlay_trains_what_it_would_on_a_neutral_default(slices, tmp_path):
    """Nothing of the planned method is left: the same weights come out of another plan's bundle."""
    folder = slices.parent
    settings = [*TINY, "patch_size=[32,32]", "method=supervised", "augmentation=weak"]
    prepare_folder(folder / "scans", folder / "annotations", tmp_path / "other", settings, validation=1)
    weights = []
    for number, bundle in enumerate((slices, tmp_path / "other")):
        out = tmp_path / str(number)
        run(bundle, ["train", "mean_teacher", "metassl"], output_dir=str(out), keep="last")
        weights.append(torch.load(out / "models" / "model.pt", weights_only=True))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
