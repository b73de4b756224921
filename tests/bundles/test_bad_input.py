# SPDX-License-Identifier: Apache-2.0
"""A user's mistake ends in one message, before anything is trained or written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from metassl_monai.apps import UserError
from metassl_monai.apps.bundles import bundle_path
from metassl_monai.apps.preflight import unknown_ids

ACDC = "acdc_cardiac_mri_segmentation"


@pytest.fixture
def data(phantom, tmp_path):
    """A copy of the phantom that a test may damage."""
    folder = tmp_path / "data"
    shutil.copytree(phantom.parent, folder)
    return folder


def edit_datalist(data, change):
    path = data / "datalist.json"
    datalist = json.loads(path.read_text())
    change(datalist)
    path.write_text(json.dumps(datalist))


def rewrite(path, change):
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(change(voxels), image.affine), path)


def with_nan(voxels):
    voxels = voxels.astype(np.float32)
    voxels[0, 0, 0] = np.nan
    return voxels


def missing_label(data):
    (data / "labels" / "phantom001.nii.gz").unlink()


def label_values_outside(data):
    rewrite(data / "labels" / "phantom001.nii.gz", lambda voxels: voxels + 7)


def other_shape(data):
    rewrite(data / "labels" / "phantom001.nii.gz", lambda voxels: voxels[:-1])


def nan_voxels(data):
    rewrite(data / "images" / "phantom001.nii.gz", with_nan)


def truncated(data):
    path = data / "images" / "phantom001.nii.gz"
    path.write_bytes(path.read_bytes()[:500])


def film(data):
    rewrite(data / "images" / "phantom001.nii.gz", lambda voxels: np.stack([voxels, voxels], axis=-1))


def no_labeled_case(data):
    edit_datalist(data, lambda datalist: datalist["labeled"].clear())


def subject_in_two_lists(data):
    edit_datalist(data, lambda datalist: datalist["validation"].append(datalist["labeled"][0]))


def other_labels(data):
    edit_datalist(data, lambda datalist: datalist["labels"].update({"4": "left atrium"}))


def no_validation(data):
    edit_datalist(data, lambda datalist: datalist["validation"].clear())


def no_datalist(data):
    (data / "datalist.json").unlink()


DAMAGES = {
    missing_label: ("labels/phantom001.nii.gz", "missing"),
    label_values_outside: ("labels/phantom001.nii.gz", "label values"),
    other_shape: ("labels/phantom001.nii.gz", "shape"),
    nan_voxels: ("images/phantom001.nii.gz", "NaN"),
    truncated: ("images/phantom001.nii.gz", "cannot be read"),
    film: ("images/phantom001.nii.gz", "4D"),
    no_labeled_case: ("datalist.json", "label"),
    subject_in_two_lists: ("datalist.json", "phantom001"),
    other_labels: ("datalist.json", "are not the config's"),
    no_validation: ("datalist.json", "'validation' is empty"),
    no_datalist: ("datalist.json", "missing"),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_bad_data_stop_a_training_with_one_message(damage, data, workflow, tmp_path):
    damage(data)
    file, cause = DAMAGES[damage]
    training = workflow(ACDC, ["train"], dataset_dir=str(data), datalist=str(data / "datalist.json"))
    with pytest.raises(UserError) as error:
        training.initialize()
    message = str(error.value)
    assert file in message
    assert cause in message
    assert "Nothing was started" in message
    assert len(message.splitlines()) == 2
    assert not (tmp_path / "out").exists()


def bundle_run(arguments, cwd):
    train = bundle_path(ACDC) / "configs" / "train.json"
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "monai.bundle",
            "run",
            "training",
            "--config_file",
            str(train),
            *arguments,
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_says_it_without_a_traceback(data, tmp_path):
    truncated(data)
    arguments = ["--dataset_dir", str(data), "--output_dir", str(tmp_path / "out"), "--iteration", "3"]
    result = bundle_run(arguments, tmp_path)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "--iteration: no config id of this name. Did you mean --iterations?" in result.stderr
    result = bundle_run(arguments[:-2], tmp_path)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "images/phantom001.nii.gz: cannot be read" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_mistake_deep_in_the_config_is_one_message_too(phantom, tmp_path):
    arguments = ["--dataset_dir", str(phantom.parent), "--preset", "papers", "--output_dir", "out"]
    result = bundle_run(arguments, tmp_path)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "preset='papers' is unknown: choose one of ['paper'," in result.stderr


def ids(*arguments):
    train = str(bundle_path(ACDC) / "configs" / "train.json")
    argv = ["/somewhere/monai/bundle/__main__.py", "run", "training", "--config_file", train, *arguments]
    return list(unknown_ids(argv))


@pytest.mark.parametrize(
    "known",
    [
        ["--iterations", "3"],
        ["--iterations=3"],
        ["--train::trainer::max_epochs", "3"],
        ["--train#trainer#max_epochs", "3"],
        ["--train::trainer::accumulation_steps", "2"],
        ["--meta_file", "x"],
        ["--meta-file", "x"],
        ["--tracking", "mlflow", "--tracking_uri", "http://localhost:5000"],
        ["--tracking", str(bundle_path(ACDC) / "configs" / "tracking.json"), "--tracking_uri", "sqlite:///x.db"],
    ],
)
def test_known_ids_pass(known):
    assert ids(*known) == []


@pytest.mark.parametrize("unknown", ["--iteration", "--trian::trainer::max_epochs", "--train::trainr::max_epochs"])
def test_unknown_ids_are_named(unknown):
    (message,) = ids(unknown, "3")
    assert message.startswith(unknown)


def test_other_programs_command_lines_are_left_alone():
    assert list(unknown_ids(["pytest", "--nonsense", "3"])) == []
