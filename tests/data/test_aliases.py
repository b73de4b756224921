# SPDX-License-Identifier: Apache-2.0
"""One file under two names: links are found in every list."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metassl_monai.bundle import check_data
from metassl_monai.bundle.errors import UserError
from metassl_monai.data import check_datalist, make_phantom
from metassl_monai.data.aliases import alias_problems

LABELED, UNLABELED, VALIDATION, TEST = (f"phantom{number:03d}.nii.gz" for number in (1, 5, 3, 4))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Labeled phantom001 and 002, validation 003, test 004, unlabeled 005 and 006."""
    make_phantom(tmp_path / "set", cases=6, labeled=2, validation=1, test=1, size=(16, 16, 3))
    return tmp_path / "set"


def _problems(root: Path, **options: Any) -> list[tuple[str, str]]:
    problems = check_datalist(root / "datalist.json", root, **options)
    return [(Path(problem.file).relative_to(root).as_posix(), problem.cause) for problem in problems]


def _link(make: Callable[..., Any], kind: str, source: str, target: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / kind / target).unlink()
        make(root / kind / source, root / kind / target)

    return change


def _symlink(source: Path, target: Path) -> None:
    target.symlink_to(source.name)


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


def test_a_linked_case_is_one_problem(dataset: Path) -> None:
    for kind in ("images", "labels"):
        _link(_symlink, kind, LABELED, VALIDATION)(dataset)
    cause = f"the image in `validation` is the same file as images/{LABELED} in `labeled`"
    assert _problems(dataset) == [(f"images/{VALIDATION}", cause)]


def test_copies_are_let_pass_and_links_are_not(dataset: Path) -> None:
    for kind in ("images", "labels"):
        _link(shutil.copy, kind, VALIDATION, TEST)(dataset)
    assert _problems(dataset) == []
    _link(_symlink, "labels", VALIDATION, TEST)(dataset)
    cause = f"the label in `test` is the same file as labels/{VALIDATION} in `validation`"
    assert (f"labels/{TEST}", cause) in _problems(dataset)


def test_an_image_may_not_be_its_label(dataset: Path) -> None:
    (dataset / "images" / VALIDATION).unlink()
    os.link(dataset / "labels" / VALIDATION, dataset / "images" / VALIDATION)
    cause = f"the label in `validation` is the same file as images/{VALIDATION} in `validation`"
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
    [error] = alias_problems(datalist, dataset)
    assert error.cause == f"the image in `test` is the same file as images/{LABELED} in `labeled`"


def test_damaged_missing_and_malformed_entries_are_passed_over(dataset: Path) -> None:
    datalist = json.loads((dataset / "datalist.json").read_text())
    (dataset / "images" / LABELED).write_bytes(b"")
    (dataset / "images" / TEST).unlink()
    datalist["labeled"].append({"image": "../elsewhere.nii.gz"})
    datalist["labeled"].append("a")
    datalist["test"].append({"image": 3})
    datalist["validation"] = None
    assert list(alias_problems(datalist, dataset)) == []


def test_training_refuses_an_alias_in_a_list_that_it_does_not_read(dataset: Path) -> None:
    _link(_symlink, "images", LABELED, TEST)(dataset)
    labels = json.loads((dataset / "datalist.json").read_text())["labels"]
    with pytest.raises(UserError, match=f"{TEST}: the image in `test` is the same file as"):
        check_data(str(dataset / "datalist.json"), str(dataset), ["labeled", "unlabeled", "validation"], labels)
