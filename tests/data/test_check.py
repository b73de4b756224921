# SPDX-License-Identifier: Apache-2.0
"""Every kind of damage is one clear problem, and all damages together are all reported."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from metassl_monai.data import Problem, check_datalist, check_images, load_datalist, make_phantom
from metassl_monai.data.parallel import for_each_case

Damage = Callable[[Path], object]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Labeled phantom001 to 010, validation 011, test 012, unlabeled 013 and 014."""
    make_phantom(tmp_path / "set", cases=14, labeled=10, validation=1, test=1, size=(24, 24, 3))
    return tmp_path / "set"


def _check(root: Path, **options: Any) -> list[Problem]:
    return check_datalist(root / "datalist.json", root, **options)


def _rewrite(file: str, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Damage:
    def damage(root: Path) -> None:
        image: Any = nibabel.load(root / file)
        array, affine = change(np.asarray(image.dataobj).copy(), image.affine)
        nibabel.save(nibabel.Nifti1Image(array, affine), root / file)

    return damage


def _edit(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(root: Path) -> None:
        datalist = json.loads((root / "datalist.json").read_text())
        change(datalist)
        (root / "datalist.json").write_text(json.dumps(datalist))

    return damage


def _with_voxel(array: np.ndarray, value: float) -> np.ndarray:
    array.flat[5] = value
    return array


def _truncate(file: str) -> Damage:
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:-600])


def _break_affine(file: str, value: float) -> Damage:
    """Write the number into the header itself, since nibabel would refuse to save it."""

    def damage(root: Path) -> None:
        image: Any = nibabel.load(root / file)
        array, header = np.asarray(image.dataobj), image.header
        for row in ("srow_x", "srow_y", "srow_z"):
            header[row][:3] = value
        with nibabel.openers.ImageOpener(str(root / file), "wb") as stream:
            stream.write(header.binaryblock + b"\0" * 4 + array.tobytes(order="F"))

    return damage


DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "missing label": (lambda root: (root / "labels/phantom001.nii.gz").unlink(), "labels/phantom001.nii.gz", "missing"),
    "value outside the classes": (
        _rewrite("labels/phantom002.nii.gz", lambda array, affine: (_with_voxel(array, 7), affine)),
        "labels/phantom002.nii.gz",
        "label values 7 are not in `labels` (0 to 3)",
    ),
    "shape mismatch": (
        _rewrite("labels/phantom003.nii.gz", lambda array, affine: (array[:, :-1], affine)),
        "labels/phantom003.nii.gz",
        "shape (24, 23, 3) is not (24, 24, 3)",
    ),
    "NaN": (
        _rewrite("images/phantom004.nii.gz", lambda array, affine: (_with_voxel(array.astype("f4"), np.nan), affine)),
        "images/phantom004.nii.gz",
        "1 voxels are NaN or infinite",
    ),
    "truncated": (_truncate("images/phantom005.nii.gz"), "images/phantom005.nii.gz", "cannot be read to its end"),
    "4D": (
        _rewrite("images/phantom006.nii.gz", lambda array, affine: (np.stack([array] * 2, -1), affine)),
        "images/phantom006.nii.gz",
        "is 4D (24 x 24 x 3 x 2)",
    ),
    "affine mismatch": (
        _rewrite("labels/phantom007.nii.gz", lambda array, affine: (array, affine + np.eye(4, k=3) * 2)),
        "labels/phantom007.nii.gz",
        "voxels beside its image phantom007.nii.gz",
    ),
    "fractions": (
        _rewrite("labels/phantom008.nii.gz", lambda array, affine: (_with_voxel(array.astype("f4"), 0.5), affine)),
        "labels/phantom008.nii.gz",
        "not integers",
    ),
    "all background": (
        _rewrite("labels/phantom009.nii.gz", lambda array, affine: (array * 0, affine)),
        "labels/phantom009.nii.gz",
        "all background",
    ),
    "not an image": (
        lambda root: (root / "images/phantom010.nii.gz").write_text("words"),
        "images/phantom010.nii.gz",
        "cannot be read",
    ),
    "infinite affine": (
        _break_affine("images/phantom011.nii.gz", np.inf),
        "images/phantom011.nii.gz",
        "affine has values that are not finite",
    ),
    "singular affine": (_break_affine("labels/phantom012.nii.gz", 0), "labels/phantom012.nii.gz", "affine is singular"),
    "missing unlabeled image": (
        lambda root: (root / "images/phantom013.nii.gz").unlink(),
        "images/phantom013.nii.gz",
        "missing",
    ),
    "subject in two lists": (
        _edit(lambda datalist: datalist["validation"].append(datalist["labeled"][0])),
        "datalist.json",
        "`labeled` and `validation` share subject phantom001",
    ),
}


def _assert_is(problem: Problem, root: Path, file: str, cause: str) -> None:
    assert problem.file == str(root / file)
    assert cause in problem.cause
    assert problem.remedy


def test_sound_data_set_has_no_problems(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check(dataset) == []
    assert capsys.readouterr().err == ""
    assert _check(dataset, progress=True) == []
    assert "checking: 14/14 case" in capsys.readouterr().err


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_exactly_one_problem(dataset: Path, name: str) -> None:
    damage, file, cause = DAMAGES[name]
    damage(dataset)
    problems = _check(dataset)
    assert len(problems) == 1, problems
    _assert_is(problems[0], dataset, file, cause)


def test_no_labeled_case_is_exactly_one_problem(dataset: Path) -> None:
    _edit(lambda datalist: datalist["labeled"].clear())(dataset)
    problems = _check(dataset)
    assert len(problems) == 1
    _assert_is(problems[0], dataset, "datalist.json", "no case is labeled")


def test_all_damages_together_are_all_reported(dataset: Path) -> None:
    for damage, _, _ in DAMAGES.values():
        damage(dataset)
    problems = _check(dataset)
    assert len(problems) == len(DAMAGES), problems
    for _, file, cause in DAMAGES.values():
        _assert_is(next(item for item in problems if item.file == str(dataset / file)), dataset, file, cause)


def test_only_the_named_lists_are_read(dataset: Path) -> None:
    (dataset / "labels/phantom011.nii.gz").unlink()
    assert _check(dataset, lists=["labeled", "unlabeled"]) == []
    assert len(_check(dataset, lists=["validation"])) == 1
    assert "no list 'training'" in _check(dataset, lists=["training"])[0].cause


def test_background_may_be_all_there_is_outside_the_labeled_list(dataset: Path) -> None:
    _rewrite("labels/phantom012.nii.gz", lambda array, affine: (array * 0, affine))(dataset)
    assert _check(dataset) == []


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "{}", "[" * 100_000, '{"labeled": [1, {"image": 3}], "unlabeled": 4}'),
        '{"labeled": [{"image": "a.nii", "label": ["b.nii"]}]}',
        '{"labeled": [{"image": [["a.nii"]], "label": "b.nii"}]}',
    ],
    ids=lambda text: text[:30],
)
def test_malformed_datalists_do_not_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / "datalist.json").write_text(text)
    problems = _check(tmp_path)
    assert problems
    assert {problem.file for problem in problems} == {str(tmp_path / "datalist.json")}


def test_missing_folder_is_one_problem(dataset: Path) -> None:
    problems = check_datalist(dataset / "datalist.json", dataset / "elsewhere")
    assert [problem.cause for problem in problems] == ["the folder is missing"]


def test_a_folder_of_other_data_is_one_problem(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    [problem] = check_datalist(dataset / "datalist.json", tmp_path / "other")
    assert problem.file == str(tmp_path / "other")
    assert re.match(r"holds none of the \d+ images that .*datalist.json names, such as ", problem.cause)


def test_link_out_of_the_folder_is_not_followed(dataset: Path, tmp_path: Path) -> None:
    file = dataset / "images/phantom001.nii.gz"
    file.rename(tmp_path / "outside.nii.gz")
    file.symlink_to(tmp_path / "outside.nii.gz")
    problems = _check(dataset)
    assert len(problems) == 1
    _assert_is(problems[0], dataset, "images/phantom001.nii.gz", "leads out of")


def test_color_pictures_pair_with_their_masks(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 6, 3), 9, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.ones((8, 6), np.uint8)).save(tmp_path / "b.png")
    item = {"image": "a.png", "label": "b.png", "subject": "a", "case": "a"}
    datalist = {"labels": {"0": "background", "1": "tumor"}, "labeled": [item]}
    empty: dict[str, list[Any]] = {"unlabeled": [], "validation": [], "test": [], "monitor": []}
    (tmp_path / "datalist.json").write_text(json.dumps(datalist | empty))
    assert _check(tmp_path) == []


def test_images_for_inference(dataset: Path) -> None:
    for name in ("NaN", "truncated", "4D", "not an image", "missing unlabeled image"):
        DAMAGES[name][0](dataset)
    files = [*sorted((dataset / "images").iterdir()), dataset / "images/phantom013.nii.gz"]
    assert len(check_images(files)) == 5


def test_every_flipped_bit_of_a_compressed_image_is_found(tmp_path: Path) -> None:
    """Larger than a reader's buffer: only the checksum at the file's end tells that a voxel is another."""
    draw = np.random.default_rng(0)
    file = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(draw.integers(0, 300, (96, 96, 20), dtype=np.int16), np.eye(4)), file)
    sound = file.read_bytes()
    assert check_images([file]) == []
    for place in draw.integers(len(sound) // 2, len(sound) - 8, 20):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(draw.integers(8))
        file.write_bytes(damaged)
        (problem,) = check_images([file])
        assert "cannot be read to its end" in problem.cause


def test_a_working_folder_that_changes_meanwhile_hides_no_file(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ITK changes it when one thread loads a module while others read."""

    def elsewhere(*arguments: Any, **options: Any) -> Any:
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        os.chdir(tmp_path / "elsewhere")
        return for_each_case(*arguments, **options)

    monkeypatch.chdir(phantom.parent)
    monkeypatch.setattr("metassl_monai.data.check.for_each_case", elsewhere)
    assert check_datalist("datalist.json", ".") == []
    monkeypatch.chdir(phantom.parent)
    items = load_datalist("datalist.json", "validation", ".")
    assert check_images([os.path.relpath(item["image"]) for item in items]) == []
    os.chdir(tmp_path)
    assert all(os.path.exists(item[field]) for item in items for field in ("image", "label"))
