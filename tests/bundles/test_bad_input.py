# SPDX-License-Identifier: Apache-2.0
"""A user's mistake ends in one message, before anything is trained or written."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from forked import run_module

from metassl_monai.bundle import UserError
from metassl_monai.bundle.command_line import check_command_line, command_mistakes
from metassl_monai.bundle.command_values import value_mistakes
from metassl_monai.bundle.locate import bundle_command, bundle_path
from metassl_monai.networks import UNet2D

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
def test_bad_data_stop_a_training_with_one_message(damage, data, workflow, refusal, tmp_path):
    damage(data)
    file, cause = DAMAGES[damage]
    training = workflow(ACDC, ["train"], dataset_dir=str(data), datalist=str(data / "datalist.json"))
    message = refusal(training)
    assert file in message
    assert cause in message
    assert "Nothing was started" in message
    assert len(message.splitlines()) == 2
    assert not (tmp_path / "out").exists()


def bundle_run(arguments, cwd, run_id="training", config="train"):
    command = bundle_command(run_id, [bundle_path(ACDC) / "configs" / f"{config}.json"], arguments)
    return run_module(command[2:], cwd)


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


@pytest.mark.parametrize(
    "mistake",
    [["--iteration", "3"], ["--preset", "papers"], ["--datalist", "nowhere.json"], ["--output_dir", "/dev/null/out"]],
    ids=lambda value: value[0],
)
def test_a_refused_run_leaves_nothing_of_its_tracking(mistake, phantom, tmp_path):
    tracking = ["--tracking", str(bundle_path(ACDC) / "configs" / "tracking.json")]
    result = bundle_run(["--dataset_dir", str(phantom.parent), "--output_dir", "out", *tracking, *mistake], tmp_path)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert mistake[1] in result.stderr or mistake[0] in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "inference", "evaluate"])
def test_an_output_that_cannot_be_written_is_told_before_the_data_are_read(name, data, workflow, refusal, tmp_path):
    truncated(data)
    (tmp_path / "file").write_text("x")
    network = tmp_path / "model.pt"
    torch.save(UNet2D(1, 4, features=(4, 8, 16, 32, 64)).state_dict(), network)
    names = ["train", "evaluate"] if name == "evaluate" else [name]
    given = {} if name == "train" else {"ckpt_path": str(network), "split": "validation"}
    ids = {"dataset_dir": str(data), "datalist": str(data / "datalist.json"), **given}
    for place in (str(tmp_path / "file"), "/dev/null/out", "/proc/out"):
        message = refusal(workflow(ACDC, names, "infer" if name == "inference" else "train", **ids, output_dir=place))
        assert f"  {place}" in message
        assert "cannot be written: " in message
        assert len(message.splitlines()) == 2
    assert (tmp_path / "file").read_text() == "x"


EVALUATION_DAMAGES = {
    missing_label: ("labels/phantom001.nii.gz", "missing"),
    truncated: ("images/phantom001.nii.gz", "cannot be read"),
    other_labels: ("datalist.json", "are not the config's"),
    no_datalist: ("datalist.json", "missing"),
}


def to_validation(datalist):
    datalist["validation"], datalist["labeled"] = datalist["labeled"], datalist["validation"]


@pytest.mark.parametrize("damage", EVALUATION_DAMAGES, ids=lambda damage: damage.__name__)
def test_bad_data_stop_an_evaluation_with_one_message(damage, data, workflow, refusal, tmp_path):
    edit_datalist(data, to_validation)
    damage(data)
    network = tmp_path / "model.pt"
    torch.save(UNet2D(1, 4, features=(4, 8, 16, 32, 64)).state_dict(), network)
    ids = {"dataset_dir": str(data), "datalist": str(data / "datalist.json"), "ckpt_path": str(network)}
    message = refusal(workflow(ACDC, ["train", "supervised", "evaluate"], **ids), "evaluating")
    refused(message, *EVALUATION_DAMAGES[damage], tmp_path=tmp_path)


@pytest.fixture
def infer(data, workflow, refusal, tmp_path):
    """Run an inference with a network of the tiny size; give the message that it is refused with."""
    network = tmp_path / "model.pt"
    torch.save(UNet2D(1, 4, features=(4, 8, 16, 32, 64)).state_dict(), network)

    def run(**overrides):
        ids = {"dataset_dir": str(data), "datalist": str(data / "datalist.json"), "ckpt_path": str(network)}
        return refusal(workflow(ACDC, ["inference"], "infer", **{**ids, "split": "labeled", **overrides}))

    return run


def leaves_the_folder(data):
    (data.parent / "elsewhere.nii.gz").touch()
    edit_datalist(data, lambda datalist: datalist["labeled"][0].update(image="../elsewhere.nii.gz"))


def missing_image(data):
    (data / "images" / "phantom001.nii.gz").unlink()


def no_image_key(data):
    edit_datalist(data, lambda datalist: datalist["labeled"][0].pop("image"))


def no_json(data):
    (data / "datalist.json").write_text("{")


def no_object(data):
    (data / "datalist.json").write_text("[]")


INFERENCE_DAMAGES = {
    nan_voxels: ("images/phantom001.nii.gz", "NaN"),
    truncated: ("images/phantom001.nii.gz", "cannot be read"),
    film: ("images/phantom001.nii.gz", "4D"),
    missing_image: ("images/phantom001.nii.gz", "the file is missing"),
    leaves_the_folder: ("elsewhere.nii.gz", "leads out of"),
    no_datalist: ("datalist.json", "missing"),
    no_json: ("datalist.json", "is not JSON"),
    no_object: ("datalist.json", "has no list 'labeled'"),
    no_image_key: ("datalist.json", "has no `image`"),
    no_labeled_case: ("datalist.json", "the list 'labeled' is empty"),
}


def refused(message, *parts, tmp_path):
    assert message is not None
    for part in ("Nothing was started", *parts):
        assert part in message
    assert len(message.splitlines()) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", INFERENCE_DAMAGES, ids=lambda damage: damage.__name__)
def test_bad_data_stop_an_inference_with_one_message(damage, data, infer, tmp_path):
    damage(data)
    refused(infer(), *INFERENCE_DAMAGES[damage], tmp_path=tmp_path)


def no_network(tmp_path):
    return tmp_path / "nowhere.pt"


def no_weights(tmp_path):
    path = tmp_path / "text.pt"
    path.write_text("weights")
    return path


def other_width(tmp_path):
    path = tmp_path / "wide.pt"
    torch.save({"model": UNet2D(1, 4, features=(8, 16, 32, 64, 128)).state_dict()}, path)
    return path


def whole_run(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"method": {}, "iteration": 4}, path)
    return path


NETWORKS = {
    no_network: "train first, or pass --ckpt_path FILE",
    no_weights: "holds no weights of a network",
    whole_run: "holds no weights of a network",
    other_width: "in the config's network: give the overlays and ids",
}


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_a_wrong_network_stops_an_inference_and_an_evaluation(network, infer, data, workflow, refusal, tmp_path):
    path = network(tmp_path)
    refused(infer(ckpt_path=str(path)), str(path), NETWORKS[network], tmp_path=tmp_path)
    ids = {"dataset_dir": str(data), "datalist": str(data / "datalist.json"), "ckpt_path": str(path)}
    message = refusal(workflow(ACDC, ["train", "supervised", "evaluate"], **ids), "evaluating")
    refused(message, str(path), NETWORKS[network], tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"split": "validaton"}, ["has no list 'validaton'", "--split labeled or unlabeled or validation or test"]),
        ({"dataset_dir": "nowhere", "datalist": None}, ["no folder nowhere", "--dataset_dir FOLDER"]),
        ({"datalist": None, "image_pattern": "*.nrrd"}, ["no images in", "--image_pattern GLOB"]),
        ({"datalist": None, "image_pattern": "../*.nii.gz"}, ["elsewhere.nii.gz", "leads out of"]),
    ],
    ids=["split", "folder", "no image", "outside"],
)
def test_a_wrong_choice_of_images_stops_an_inference_with_one_message(overrides, parts, data, infer, tmp_path):
    shutil.copy(data / "images" / "phantom001.nii.gz", data.parent / "elsewhere.nii.gz")
    refused(infer(**overrides), *parts, tmp_path=tmp_path)


def test_sound_images_pass_and_reading_them_can_be_left_out(data, infer):
    assert infer() is None
    assert infer(datalist=None, image_pattern="images/*.nii.gz") is None
    truncated(data)
    with pytest.raises(RuntimeError):  # of the reader, since nothing was checked
        infer(check_data=False)


def test_the_command_line_of_inference_says_it_without_a_traceback(data, tmp_path):
    network = tmp_path / "model.pt"
    torch.save(UNet2D(1, 4, features=(4, 8, 16, 32, 64)).state_dict(), network)
    truncated(data)
    arguments = ["--dataset_dir", str(data), "--datalist", str(data / "datalist.json"), "--split", "labeled"]
    arguments += ["--ckpt_path", str(network), "--features", "[4,8,16,32,64]", "--output_dir", str(tmp_path / "out")]
    for more, message in (
        ([], "images/phantom001.nii.gz: cannot be read"),
        (["--splits", "x"], "Did you mean --split?"),
    ):
        result = bundle_run([*arguments, *more], tmp_path, "inference", "inference")
        assert result.returncode != 0
        assert "Traceback" not in result.stderr
        assert message in result.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"), [("checkpoint", ""), ("xyzzy", r"\. See the ids in .*configs.inference\.json\.")]
)
def test_ids_of_inference_are_checked(name, message):
    inference = str(bundle_path(ACDC) / "configs" / "inference.json")
    with pytest.raises(UserError, match=f"--{name}: no config id of this name{message}"):
        check_command_line(
            ["monai/bundle/__main__.py", "run", "inference", "--config_file", inference, f"--{name}", "x"]
        )


def ids(*arguments):
    train = str(bundle_path(ACDC) / "configs" / "train.json")
    argv = ["/somewhere/monai/bundle/__main__.py", "run", "training", "--config_file", train, *arguments]
    return list(command_mistakes(argv))


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
    assert list(command_mistakes(["pytest", "--nonsense", "3"])) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume", "false"], "--resume false: write True or False"),
        (["--amp", "false"], "--amp false: write True or False"),
        (["--check_data", "no"], "--check_data no: write True or False"),
        (["-iterations", "5"], "-iterations: options begin with two dashes: write --iterations"),
        (["--output_dir", "my", "runs"], "runs: is no option: write --id VALUE, with quotes around a value"),
        (["iterations"], "iterations: is no option"),
        (["--iterations"], "--iterations: has no value"),
        (["--iterations", "--seed", "3"], "--iterations: has no value"),
        (["--iterations", "0"], "--iterations 0: must be 1 or more"),
        (["--iterations", "abc"], "--iterations abc: must be a whole number"),
        (["--iterations", "2.5"], "--iterations 2.5: must be a whole number"),
        (["--iterations="], "--iterations : must be a whole number"),
        (["--labeled_batch_size", "0"], "--labeled_batch_size 0: must be 1 or more"),
        (["--num_workers", "-1"], "--num_workers -1: must be 0 or more"),
        (["--features", "8"], "--features 8: must be a list"),
        (["--keep", "worst"], "--keep worst: choose best or last"),
        (["--method_name", "mean_teacher"], "--method_name: it only names the run: give the method's overlay"),
    ],
    ids=" ".join,
)
def test_words_and_values_that_would_do_something_else_are_refused(words, message):
    (found,) = ids(*words)
    assert found.startswith(message)


@pytest.mark.parametrize(
    "words",
    [
        ["--resume", "True"],
        ["--amp", "False"],
        ["--keep", "last"],
        ["--seed", "0"],
        ["--num_workers=2"],
        ["--num_workers", "$1 + 1"],
        ["--spatial_size", "[64,64]"],
        ["--output_dir", "-runs"],
        ["--device", "cuda:1"],
    ],
    ids=" ".join,
)
def test_sensible_values_pass(words):
    assert ids(*words) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train", "plain", "bcp"], "plain.json must come after bcp.json"),
        (["bcp", "train"], "train.json must come first"),
        (["train", "bcp", "mean_teacher"], "bcp.json, mean_teacher.json are overlays of several methods"),
        (["train", "bcp", "acdc_small", "plain", "adamw"], None),
        (["train", "monitor"], None),
    ],
)
def test_configs_in_an_order_that_undoes_one_of_them_are_refused(names, message):
    files = str([str(bundle_path(ACDC) / "configs" / f"{name}.json") for name in names])
    found = list(command_mistakes(["monai/bundle/__main__.py", "run", "training", "--config_file", files]))
    assert len(found) == (message is not None)
    assert message is None or message in found[0]


def test_a_time_limit_is_a_number_above_zero():
    config = {"timeout_minutes": 10.0}
    assert list(value_mistakes({"timeout_minutes": "0.5"}, config)) == []
    for value, told in (("0", "must be more than 0"), ("-1", "must be more than 0"), ("soon", "must be a number")):
        assert list(value_mistakes({"timeout_minutes": value}, config)) == [f"--timeout_minutes {value}: {told}"]
