# SPDX-License-Identifier: Apache-2.0
"""One file under two names: links and copies are found in every list, and only copies of labels are let pass."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metassl_monai.apps import check_data
from metassl_monai.apps.errors import UserError
from metassl_monai.data import check_datalist, make_phantom, prepare_pancreas_ct, write_datalist
from metassl_monai.data.aliases import alias_errors

LABELED, UNLABELED, VALIDATION, TEST = (f"phantom{number:03d}.nii.gz" for number in (1, 5, 3, 4))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Labeled phantom001 and 002, validation 003, test 004, unlabeled 005 and 006."""
    make_phantom(tmp_path / "set", cases=6, labeled=2, validation=1, test=1, size=(16, 16, 3))
    return tmp_path / "set"


def _problems(root: Path, **options: Any) -> list[tuple[str, str]]:
    problems = check_datalist(root / "datalist.json", root, **options)
    return [(Path(problem.file).relative_to(root).as_posix(), problem.cause) for problem in problems]


def _aliases(root: Path) -> list[tuple[str, str]]:
    errors = alias_errors(json.loads((root / "datalist.json").read_text()), root)
    return [(Path(error.args[0]).relative_to(root).as_posix(), error.args[1]) for error in errors]


def _link(make: Callable[..., Any], kind: str, source: str, target: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / kind / target).unlink()
        make(root / kind / source, root / kind / target)

    return change


def _symlink(source: Path, target: Path) -> None:
    target.symlink_to(source.name)


def _compress_anew(source: Path, target: Path) -> None:
    target.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()), 1, mtime=12345))


def test_sound_data_have_no_alias(dataset: Path) -> None:
    assert _problems(dataset) == []


PAIRS = [
    (LABELED, "labeled", VALIDATION, "validation"),
    (UNLABELED, "unlabeled", TEST, "test"),
    (VALIDATION, "validation", TEST, "test"),
    (LABELED, "labeled", UNLABELED, "unlabeled"),
    (LABELED, "labeled", "phantom002.nii.gz", "labeled"),
    (UNLABELED, "unlabeled", "phantom006.nii.gz", "unlabeled"),
]


@pytest.mark.parametrize("make", [_symlink, os.link])
@pytest.mark.parametrize(("source", "one", "target", "other"), PAIRS)
def test_a_linked_image_is_a_problem_whichever_list_is_read(
    dataset: Path, make: Callable[..., Any], source: str, one: str, target: str, other: str
) -> None:
    _link(make, "images", source, target)(dataset)
    problem = (f"images/{target}", f"the image in `{other}` is the same file as images/{source} in `{one}`")
    assert problem in _problems(dataset)
    assert problem in _problems(dataset, lists=["labeled"])


@pytest.mark.parametrize("make", [shutil.copy, _compress_anew])
@pytest.mark.parametrize(("source", "one", "target", "other"), PAIRS)
def test_a_copied_image_is_a_problem_where_it_is_not_for_training(
    dataset: Path, make: Callable[..., Any], source: str, one: str, target: str, other: str
) -> None:
    _link(make, "images", source, target)(dataset)
    problem = (f"images/{target}", f"the image in `{other}` has the content of images/{source} in `{one}`")
    assert _aliases(dataset) == ([] if other in ("labeled", "unlabeled") else [problem])


def test_every_copy_is_told_of_the_first(dataset: Path) -> None:
    for name in ("phantom002.nii.gz", VALIDATION, TEST):
        _link(shutil.copy, "images", LABELED, name)(dataset)
    assert [file for file, _ in _aliases(dataset)] == [f"images/{VALIDATION}", f"images/{TEST}"]


def test_a_linked_case_is_one_problem(dataset: Path) -> None:
    for kind in ("images", "labels"):
        _link(_symlink, kind, LABELED, VALIDATION)(dataset)
    cause = f"the image in `validation` is the same file as images/{LABELED} in `labeled`"
    assert _problems(dataset) == [(f"images/{VALIDATION}", cause)]


def test_labels_may_be_copies_but_not_links(dataset: Path) -> None:
    _link(shutil.copy, "labels", VALIDATION, TEST)(dataset)
    assert _aliases(dataset) == []
    _link(_symlink, "labels", VALIDATION, TEST)(dataset)
    cause = f"the label in `test` is the same file as labels/{VALIDATION} in `validation`"
    assert (f"labels/{TEST}", cause) in _problems(dataset)


def test_an_image_may_not_be_its_label(dataset: Path) -> None:
    (dataset / "images" / VALIDATION).unlink()
    shutil.copy(dataset / "labels" / VALIDATION, dataset / "images" / VALIDATION)
    cause = f"the label in `validation` has the content of images/{VALIDATION} in `validation`"
    assert _problems(dataset) == [(f"labels/{VALIDATION}", cause)]


def test_a_label_that_is_named_as_an_image_is_one_problem(dataset: Path) -> None:
    _link(shutil.copy, "labels", LABELED, VALIDATION)(dataset)
    datalist = json.loads((dataset / "datalist.json").read_text())
    datalist["validation"][0]["image"] = datalist["validation"][0]["label"]
    (dataset / "datalist.json").write_text(json.dumps(datalist))
    cause = f"labels/{VALIDATION} is named as an image and as a label"
    assert _problems(dataset) == [("datalist.json", cause)]


def test_a_linked_folder_is_seen_through(dataset: Path) -> None:
    (dataset / "again").symlink_to("images")
    datalist = json.loads((dataset / "datalist.json").read_text())
    datalist["test"][0]["image"] = f"again/{LABELED}"
    [error] = alias_errors(datalist, dataset)
    assert error.args[1] == f"the image in `test` is the same file as images/{LABELED} in `labeled`"


def test_damaged_missing_and_malformed_entries_are_passed_over(dataset: Path) -> None:
    datalist = json.loads((dataset / "datalist.json").read_text())
    (dataset / "images" / LABELED).write_bytes(b"")
    (dataset / "images" / TEST).unlink()
    datalist["labeled"].append({"image": "../elsewhere.nii.gz"})
    datalist["labeled"].append("a")
    datalist["test"].append({"image": 3})
    datalist["validation"] = None
    assert list(alias_errors(datalist, dataset)) == []


def test_damaged_copies_are_passed_over(dataset: Path) -> None:
    content = (dataset / "images" / LABELED).read_bytes()
    for name in (LABELED, TEST):
        (dataset / "images" / name).write_bytes(content[:50] + b"words" + content[55:])
    assert _aliases(dataset) == []


def test_training_refuses_an_alias_in_a_list_that_it_does_not_read(dataset: Path) -> None:
    _link(_symlink, "images", LABELED, TEST)(dataset)
    labels = json.loads((dataset / "datalist.json").read_text())["labels"]
    with pytest.raises(UserError, match=f"{TEST}: the image in `test` is the same file as"):
        check_data(str(dataset / "datalist.json"), str(dataset), ["labeled", "unlabeled", "validation"], labels)


def test_a_copied_series_is_found_under_other_file_names(
    write_pancreas_ct: Callable[..., Path], tmp_path: Path
) -> None:
    release = write_pancreas_ct(tmp_path / "pancreas", [1, 2, 63], (8, 8, 4), "LAI")
    write_datalist(prepare_pancreas_ct(release, labeled=1), tmp_path / "pancreas.json")
    assert check_datalist(tmp_path / "pancreas.json", release) == []
    series = [release / "Pancreas-CT" / f"PANCREAS_{n:04d}" / f"1.3.6.{n}" / f"1.3.6.{n}.1" for n in (1, 63)]
    for number, file in enumerate(sorted(series[0].iterdir(), reverse=True), 1):
        shutil.copy(file, series[1] / f"1-{number:03d}.dcm")
    problems = check_datalist(tmp_path / "pancreas.json", release)
    assert [problem.file for problem in problems if "has the content of" in problem.cause] == [str(series[1])]
