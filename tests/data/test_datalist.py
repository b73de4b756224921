# SPDX-License-Identifier: Apache-2.0
"""Datalists: what is refused and why, paths that stay inside, and writing whole or not at all."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metassl_monai.data import DatalistError, load_datalist, read_datalist, validate_datalist, write_datalist
from metassl_monai.data.datalist_structure import datalist_problems

Datalist = dict[str, Any]


def _item(name: str, label: bool = True) -> dict[str, str]:
    item = {"image": f"images/{name}.nii.gz", "subject": name, "case": name}
    return item | {"label": f"labels/{name}.nii.gz"} if label else item


@pytest.fixture
def datalist() -> Datalist:
    return {
        "name": "tiny",
        "labels": {"0": "background", "1": "heart"},
        "labeled": [_item("a")],
        "unlabeled": [_item("b", label=False), _item("c", label=False)],
        "validation": [_item("d")],
        "test": [],
        "monitor": [_item("b")],
        "source": {"reader": "hand"},
    }


def _drop(key: str) -> Callable[[Datalist], Any]:
    return lambda datalist: datalist.pop(key)


def _put(key: str, value: Any) -> Callable[[Datalist], Any]:
    return lambda datalist: datalist.__setitem__(key, value)


def _change(key: str, field: str, value: str) -> Callable[[Datalist], Any]:
    return lambda datalist: datalist[key][0].__setitem__(field, value)


def _drop_field(key: str, field: str) -> Callable[[Datalist], Any]:
    return lambda datalist: datalist[key][0].pop(field)


DAMAGES = [
    *[
        (_drop(key), f"`{key}` is missing")
        for key in ("labels", "labeled", "unlabeled", "validation", "test", "monitor")
    ],
    (_put("name", 3), "`name` is 3, which is no text"),
    (_put("validation", {}), "`validation` is missing or not a list"),
    (_put("validation", ["d"]), "`validation` item 0 is not an object"),
    *[(_drop_field("labeled", field), f"`labeled` item 0 has no `{field}`") for field in ("image", "subject", "case")],
    *[(_drop_field(key, "label"), f"`{key}` item 0 has no `label`") for key in ("labeled", "validation", "monitor")],
    (_put("test", [_item("e", label=False)]), "`test` item 0 has no `label`"),
    (_change("unlabeled", "label", "labels/b.nii.gz"), "`unlabeled` item 0 has a `label`"),
    (_put("test", [_item("a")]), "`labeled` and `test` share subject a"),
    (_put("test", [_item("c")]), "`unlabeled` and `test` share subject c"),
    (_change("validation", "image", "images/a.nii.gz"), "`labeled` and `validation` share image images/a.nii.gz"),
    (_put("monitor", [_item("d")]), "`monitor` has subject d"),
    (_put("test", [_item("e"), _item("e")]), "`test` has two items with the image images/e.nii.gz"),
    (_put("unlabeled", [_item("b", label=False)] * 2), "`unlabeled` has two items with the image images/b.nii.gz"),
    (_put("monitor", [_item("b")] * 2), "`monitor` has two items with the image images/b.nii.gz"),
    (
        _put("test", [_item("e"), _item("f") | {"label": "labels//e.nii.gz"}]),
        "`test` has two items with the label labels/e.nii.gz",
    ),
    (_put("test", [_item("e"), _item("f") | {"case": "e"}]), "`test` has two items with the case e"),
    (_put("test", [_item("e") | {"case": "a"}]), "`labeled` and `test` share case a"),
    (_put("test", [_item("e") | {"case": "b"}]), "`unlabeled` and `test` share case b"),
    (_put("test", [_item("e") | {"label": "labels/b.nii.gz"}]), "`test` and `monitor` share label labels/b.nii.gz"),
    (_put("test", [_item("e") | {"image": "images\\a.nii.gz"}]), "`labeled` and `test` share image images/a.nii.gz"),
    (_change("validation", "image", "labels/d.nii.gz"), "labels/d.nii.gz is named as an image and as a label"),
    (_change("validation", "label", "images/b.nii.gz"), "images/b.nii.gz is named as an image and as a label"),
    (_change("labeled", "image", "/data/a.nii.gz"), "/data/a.nii.gz, is absolute"),
    (_change("labeled", "image", "C:\\data\\a.nii.gz"), "is absolute"),
    (_change("labeled", "label", "labels/../../a.nii.gz"), "has a '..' in it"),
    (_change("labeled", "label", "..\\a.nii.gz"), "has a '..' in it"),
    (_change("labeled", "label", "labels/a\0.nii.gz"), "null character"),
    (_put("labeled", []), "no case is labeled"),
    (_put("labels", {"0": "background", "2": "heart"}), "not 0, 1, ... but 0, 2"),
    (_put("labels", {"0": "background"}), "the values in `labels`"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_each_damage_is_refused_with_file_cause_and_remedy(
    datalist: Datalist, damage: Callable[[Datalist], Any], message: str
) -> None:
    damage(datalist)
    with pytest.raises(DatalistError) as caught:
        validate_datalist(datalist, "tiny.json")
    file, cause, remedy = caught.value.args
    assert file == "tiny.json"
    assert message in cause
    assert remedy
    assert str(caught.value) == f"{file}: {cause}; {remedy}"


def test_sound_datalist_passes(datalist: Datalist) -> None:
    validate_datalist(datalist, "tiny.json")


def test_one_mistake_is_one_error_and_two_are_two(datalist: Datalist) -> None:
    datalist["test"] = [_item("a"), _item("e"), _item("f") | {"case": "e"}, _item("g"), _item("g")]
    assert [problem.cause for problem in datalist_problems(datalist, "tiny.json")] == [
        "`labeled` and `test` share subject a",
        "`test` has two items with the image images/g.nii.gz",
        "`test` has two items with the case e",
    ]


def test_a_subject_may_have_several_cases_in_one_list(datalist: Datalist) -> None:
    datalist["test"] = [_item("e"), _item("f") | {"subject": "e"}]
    validate_datalist(datalist, "tiny.json")


def test_error_can_be_rebuilt_as_between_processes() -> None:
    error = DatalistError("tiny.json", "is wrong", "mend it")
    assert str(copy.copy(error)) == str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "the file is missing"), (b"{", "is not JSON"), (b"\xff\xfe", "is not JSON"), (b"[]", "not a JSON object")],
)
def test_read_refuses_what_is_no_datalist(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "tiny.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatalistError, match=message):
        read_datalist(path)


def test_read_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DatalistError, match="cannot be read"):
        read_datalist(tmp_path)


def test_load_joins_paths_and_returns_empty_lists(datalist: Datalist, tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    write_datalist(datalist, path)
    assert read_datalist(path) == datalist
    item = load_datalist(path, "labeled", tmp_path)[0]
    assert item == _item("a") | {field: os.path.join(tmp_path, _item("a")[field]) for field in ("image", "label")}
    assert all("label" not in item for item in load_datalist(path, "unlabeled", tmp_path))
    assert load_datalist(path, "test", tmp_path) == []


def test_load_names_the_known_lists_and_a_missing_folder(datalist: Datalist, tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    write_datalist(datalist, path)
    with pytest.raises(DatalistError, match="labeled, unlabeled, validation, test, monitor"):
        load_datalist(path, "training", tmp_path)
    with pytest.raises(DatalistError, match="folder of the data set is missing"):
        load_datalist(path, "labeled", tmp_path / "elsewhere")


def test_load_refuses_a_link_that_leaves_the_folder(datalist: Datalist, tmp_path: Path) -> None:
    dataset, outside = tmp_path / "dataset", tmp_path / "outside"
    dataset.mkdir()
    outside.mkdir()
    dataset.joinpath("images").symlink_to(outside, target_is_directory=True)
    write_datalist(datalist, tmp_path / "tiny.json")
    with pytest.raises(DatalistError, match="leads out of"):
        load_datalist(tmp_path / "tiny.json", "labeled", dataset)


def test_load_follows_links_within_the_folder_and_to_it(datalist: Datalist, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    dataset.joinpath("store").mkdir(parents=True)
    dataset.joinpath("images").symlink_to("store", target_is_directory=True)
    tmp_path.joinpath("link").symlink_to(dataset, target_is_directory=True)
    write_datalist(datalist, tmp_path / "tiny.json")
    assert len(load_datalist(tmp_path / "tiny.json", "labeled", tmp_path / "link")) == 1


def test_write_replaces_only_datalists(datalist: Datalist, tmp_path: Path) -> None:
    path = tmp_path / "new" / "tiny.json"
    write_datalist(datalist, path)
    write_datalist(datalist | {"name": "other"}, path)
    assert read_datalist(path)["name"] == "other"
    foreign = tmp_path / "config.json"
    foreign.write_text("{}")
    with pytest.raises(DatalistError, match="exists and is not a datalist"):
        write_datalist(datalist, foreign)
    assert foreign.read_text() == "{}"


def test_write_leaves_nothing_behind_when_it_fails(datalist: Datalist, tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    write_datalist(datalist, path)
    with pytest.raises(DatalistError):
        write_datalist(datalist | {"labeled": []}, path)
    with pytest.raises(TypeError):
        write_datalist(datalist | {"source": object()}, path)
    assert json.loads(path.read_text()) == datalist
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.json"]


def phantom_like():
    def item(name, label=True):
        files = {"image": f"images/{name}.nii.gz", "subject": name, "case": name}
        return {**files, "label": f"labels/{name}.nii.gz"} if label else files

    return {
        "labels": {"0": "background", "1": "heart"},
        "labeled": [item("a")],
        "unlabeled": [item("b", label=False)],
        "validation": [item("c")],
        "test": [item("d")],
        "monitor": [item("b")],
    }


def test_another_spelling_of_a_path_is_the_same_image():
    datalist = phantom_like()
    validate_datalist(datalist, "x.json")
    datalist["validation"][0]["image"] = "images/./a.nii.gz"
    with pytest.raises(DatalistError, match="share image"):
        validate_datalist(datalist, "x.json")


def test_monitor_cannot_name_an_image_that_is_not_unlabeled():
    datalist = phantom_like()
    datalist["monitor"][0]["image"] = "images/d.nii.gz"
    with pytest.raises(DatalistError, match="`monitor` has image"):
        validate_datalist(datalist, "x.json")
