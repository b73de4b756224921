# SPDX-License-Identifier: Apache-2.0
"""DigestPath's release as a datalist: pairs, subjects, lists, and masks with the marks of JPEG."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metassl_monai.apps.evaluate import evaluate_predictions
from metassl_monai.apps.prepare import prepare_datalist
from metassl_monai.bundle import UserError
from metassl_monai.data import (
    DatalistError,
    check_datalist,
    check_images,
    load_datalist,
    prediction_path,
    prepare_digestpath,
    validate_datalist,
    write_datalist,
)
from metassl_monai.data.pictures import large_pictures

POSITIVE = "tissue-train-pos-v1"
LISTS = ("labeled", "unlabeled", "validation", "test")


@pytest.fixture
def release(tmp_path: Path, write_digestpath: Any) -> Path:
    return write_digestpath(tmp_path / "data")


def prepare(release: Path, **options: Any) -> dict[str, Any]:
    return prepare_digestpath(release, **{"labeled": 1, "seed": 0, "validation": 1, "test": 1, **options})


def subjects(datalist: dict[str, Any], key: str) -> list[str]:
    return list(dict.fromkeys(item["subject"] for item in datalist[key]))


def test_every_malignant_image_is_in_one_list(release: Path) -> None:
    datalist = prepare(release)
    validate_datalist(datalist, "digestpath.json")
    images = [item["image"] for key in LISTS for item in datalist[key]]
    on_disk = {f"{POSITIVE}/{file.name}" for file in (release / POSITIVE).glob("*[0-9].jpg")}
    assert len(images) == len(set(images)) == 8
    assert set(images) == on_disk
    assert [item["case"] for item in datalist["monitor"]] == [item["case"] for item in datalist["unlabeled"]]
    assert all(item["label"] == item["image"].replace(".jpg", "_mask.jpg") for item in datalist["monitor"])


def test_slides_of_one_accession_number_are_one_subject(release: Path) -> None:
    datalist = prepare(release, validation=0, test=0)
    found = {item["subject"]: 0 for key in LISTS for item in datalist[key]}
    for item in itertools.chain(*(datalist[key] for key in LISTS)):
        found[item["subject"]] += 1
    assert found == {
        "18-02791": 3,
        "D201703621": 1,
        "2019_01120": 1,
        "1901558": 1,
        "2019-06-11 00_44_44": 1,
        "F2018_13446": 1,
    }


def test_lists_depend_on_the_seed_alone(release: Path) -> None:
    first, more = prepare(release), prepare(release, labeled=3)
    assert first == prepare(release)
    assert subjects(first, "test") == subjects(more, "test")
    assert subjects(first, "validation") == subjects(more, "validation")
    assert subjects(more, "labeled")[:1] == subjects(first, "labeled")
    assert len({tuple(subjects(prepare(release, seed=seed), "test")) for seed in range(8)}) > 1
    assert first["source"]["seed"] == 0


def test_the_folder_may_be_above_the_images_or_theirs(release: Path) -> None:
    cases = {folder: prepare(folder) for folder in (release.parent, release, release / POSITIVE)}
    names = [[item["case"] for item in datalist["labeled"]] for datalist in cases.values()]
    assert names[0] == names[1] == names[2]
    assert all((folder / datalist["test"][0]["image"]).is_file() for folder, datalist in cases.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "published"}, "no list was published; give a number"),
        ({"seed": "x"}, "'x' is not an integer"),
        ({"test": 5}, "cannot take 5 for testing, 1 for validation and label 1 of 6 subjects"),
        ({"validation": -1}, "cannot take"),
        ({"labeled": 0}, "cannot label 0"),
    ],
)
def test_what_cannot_be_is_refused(release: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DatalistError, match=message):
        prepare(release, **options)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatalistError, match="holds no DigestPath image"):
        prepare(tmp_path)


def test_a_missing_mask_is_refused_where_it_is_needed_and_no_monitor_elsewhere(release: Path) -> None:
    datalist = prepare(release)
    hidden, needed = datalist["monitor"][0]["label"], datalist["test"][0]["label"]
    (release / hidden).unlink()
    assert hidden not in [item["label"] for item in prepare(release)["monitor"]]
    (release / needed).unlink()
    with pytest.raises(DatalistError, match=r"annotation of .* is missing"):
        prepare(release)


def test_one_name_in_two_folders_is_refused(release: Path) -> None:
    second = release / "tissue-train-pos"
    second.mkdir()
    name = next((release / POSITIVE).glob("*[0-9].jpg")).name
    (second / name).write_bytes((release / POSITIVE / name).read_bytes())
    with pytest.raises(DatalistError, match="another folder holds this image"):
        prepare(release)


def test_the_command_asks_for_a_seed(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DatalistError, match="no list was published"):
        prepare_datalist("digestpath", release, 1, release / "datalist.json", "published", validation=1, test=1)
    prepare_datalist("digestpath", release, 1, release / "datalist.json", "7", validation=1, test=1)
    assert "labeled" in capsys.readouterr().out


def written(release: Path, **changes: Any) -> Path:
    datalist = prepare(release) | changes
    (release / "datalist.json").write_text(json.dumps(datalist))
    return release / "datalist.json"


def test_masks_with_the_marks_of_jpeg_pass_with_the_threshold_only(release: Path) -> None:
    datalist = written(release)
    raw = np.asarray(Image.open(release / prepare(release)["labeled"][0]["label"]))
    assert len(np.unique(raw)) > 2
    assert check_datalist(datalist, release) == []
    content = json.loads(datalist.read_text())
    del content["label_threshold"]
    datalist.write_text(json.dumps(content))
    assert {problem.cause[:12] for problem in check_datalist(datalist, release)} == {"label values"}


def test_a_mask_without_tumor_is_a_problem_of_labeled_cases(release: Path) -> None:
    datalist = prepare(release)
    for key in ("labeled", "test"):
        mask = release / datalist[key][0]["label"]
        Image.fromarray(np.full_like(np.asarray(Image.open(mask)), 100)).save(mask)
    [problem] = check_datalist(written(release), release)
    assert problem.cause == "the label of a labeled case is all background"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"label_threshold": "128"}, "not a number"),
        ({"label_threshold": True}, "not a number"),
        ({"label_threshold": None}, "not a number"),
        ({"label_threshold": float("nan")}, "not a number"),
        ({"labels": {"0": "a", "1": "b", "2": "c"}}, "two classes apart, not 3"),
        ({"label_values": {"0": 0, "255": 1}}, "both `label_values` and `label_threshold`"),
    ],
)
def test_malformed_thresholds_are_refused(release: Path, changes: dict[str, Any], cause: str) -> None:
    with pytest.raises(DatalistError, match=cause):
        validate_datalist(prepare(release) | changes, "digestpath.json")
    assert any(cause in problem.cause for problem in check_datalist(written(release, **changes), release))


@pytest.fixture
def predicted(release: Path, tmp_path: Path) -> tuple[Path, list[dict[str, str]], Path]:
    """A datalist, its test items, and predictions that equal the masks."""
    datalist = release / "datalist.json"
    write_datalist(prepare(release), datalist)
    items = load_datalist(datalist, "test", release)
    for item in items:
        file = prediction_path(item["image"], release, tmp_path / "predictions")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.asarray(Image.open(item["label"])) >= 128).astype(np.uint8)).save(file)
        assert file.name == f"{item['case']}_seg.png"
    return datalist, items, tmp_path / "predictions"


def test_pictures_are_evaluated_in_pixels(predicted: Any, release: Path, tmp_path: Path) -> None:
    datalist, items, predictions = predicted
    rows = evaluate_predictions(datalist, release, "test", predictions, tmp_path / "table")
    rows = [row for row in rows if row["structure"] == "tumor"]
    assert len(rows) == len(items)
    for row in rows:
        assert row["dice"] == row["jaccard"] == 1
        assert row["hd95_voxel"] == row["asd_voxel"] == 0
        assert np.isnan([row["hd95_mm"], row["asd_mm"], row["assd_mm"]]).all()


def test_a_mask_saved_in_color_counts_as_its_gray_self(predicted: Any, release: Path, tmp_path: Path) -> None:
    datalist, items, predictions = predicted
    Image.open(items[0]["label"]).convert("RGB").save(items[0]["label"], quality=95)
    rows = evaluate_predictions(datalist, release, "test", predictions, tmp_path / "table")
    assert rows[0]["dice"] > 0.95


def test_a_turned_prediction_is_refused(predicted: Any, release: Path, tmp_path: Path) -> None:
    datalist, items, predictions = predicted
    file = prediction_path(items[0]["image"], release, predictions)
    Image.open(file).transpose(Image.Transpose.ROTATE_90).save(file)
    with pytest.raises(UserError, match=r"its shape .* is not .*, that of the annotation"):
        evaluate_predictions(datalist, release, "test", predictions, tmp_path / "table")


def test_slides_that_pillow_takes_for_bombs_are_read(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = next((release / POSITIVE).glob("*[0-9].jpg"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(image)
    assert check_images([image]) == []
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_who_has_lifted_the_limit_keeps_it_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with large_pictures():
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS is None
