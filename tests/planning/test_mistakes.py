# SPDX-License-Identifier: Apache-2.0
"""Mistakes of people with scans of their own: each ends in one message with file, cause and remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from metassl_monai.data import DatalistError, check_datalist, read_scan
from metassl_monai.planning import collect_folder, image_cases

from .writing import a_label, a_picture, an_image, write_scan

Change = Callable[[Path], Any]


def swap(folder: Path) -> None:
    (folder / "scans").rename(folder / "x")
    (folder / "labels").rename(folder / "scans")
    (folder / "x").rename(folder / "labels")


def rename(old: str, new: str) -> Change:
    return lambda folder: (folder / old).rename(folder / new)


def put(name: str, voxels: np.ndarray) -> Change:
    return lambda folder: write_scan(folder / name, voxels) and None


def two_channels(folder: Path) -> None:
    for file in (folder / "scans").iterdir():
        name = file.name.removesuffix(".nii.gz")
        shutil.copy(file, file.with_name(f"{name}_0000.nii.gz"))
        file.rename(file.with_name(f"{name}_0001.nii.gz"))


def one_channel_missing(folder: Path) -> None:
    two_channels(folder)
    (folder / "scans" / "e_0001.nii.gz").unlink()


def a_file_without_channel(folder: Path) -> None:
    two_channels(folder)
    write_scan(folder / "scans" / "new.nii.gz", an_image())


def only(name: str, count: int = 0) -> Change:
    """Leave only the first files of a folder."""

    def change(folder: Path) -> None:
        for file in sorted((folder / name).iterdir())[count:]:
            file.unlink()

    return change


def truncate(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-60]) and None


def in_color(folder: Path) -> None:
    shutil.rmtree(folder / "scans")
    shutil.rmtree(folder / "labels")
    mask = np.zeros((40, 30, 3), np.uint8)
    mask[10:20, :, 0] = 255
    mask[20:30, :, 1] = 255
    write_scan(folder / "scans" / "a.png", a_picture())
    write_scan(folder / "labels" / "a.png", mask)


def gray_among_color(folder: Path) -> None:
    in_color(folder)
    mask = np.zeros((40, 30), np.uint8)
    mask[10:20] = 1
    write_scan(folder / "labels" / "a.png", mask)
    for name in "bcd":
        write_scan(folder / "scans" / f"{name}.png", a_picture(0, (40, 30, 3)))


def a_jpeg_of_many(folder: Path) -> None:
    in_color(folder)
    mask = np.zeros((40, 30), np.uint8)
    mask[10:20] = 100
    (folder / "labels" / "a.png").unlink()
    write_scan(folder / "labels" / "a.jpg", mask)


def nothing(folder: Path) -> None:
    pass


def a_dataset_json(labels: dict[str, Any], channels: int = 2) -> Change:
    """nnU-Net's layout with two channels and these labels."""

    def change(folder: Path) -> None:
        two_channels(folder)
        (folder / "scans").rename(folder / "imagesTr")
        (folder / "labels").rename(folder / "labelsTr")
        names = {str(number): f"c{number}" for number in range(channels)}
        (folder / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": labels}))

    return change


def a_list(content: Any) -> Change:
    return lambda folder: (folder / "list.json").write_text(
        content if isinstance(content, str) else json.dumps(content)
    )


def two_pages(folder: Path) -> None:
    from PIL import Image

    in_color(folder)
    (folder / "scans" / "a.png").unlink()
    pages = [Image.fromarray(a_picture(seed)) for seed in (0, 1)]
    pages[0].save(folder / "scans" / "a.tif", save_all=True, append_images=pages[1:])


def a_link(folder: Path) -> None:
    elsewhere = folder.parent / f"{folder.name}_elsewhere"
    elsewhere.mkdir()
    (folder / "scans" / "a.nii.gz").rename(elsewhere / "a.nii.gz")
    (folder / "scans" / "a.nii.gz").symlink_to(elsewhere / "a.nii.gz")


ONE = {"labels": None}
LIST = {"images": "list.json", "labels": None}
RAW = {"images": ".", "labels": None}
FILM = np.stack([an_image()] * 3, -1)

MISTAKES: dict[str, tuple[Change, dict[str, Any], str, str]] = {
    "no such folder": (nothing, {"images": "scan"}, "scan: the folder is missing", "correct the path"),
    "no such folder of labels": (nothing, {"labels": "label"}, "label: the folder is missing", "correct the path"),
    "a file for a folder": (nothing, {"images": "scans/a.nii.gz"}, "is a file, not a folder", "correct the path"),
    "an empty folder": (only("scans"), {}, "scans: holds no image", "name a folder with NIfTI, NRRD"),
    "an empty folder of labels": (only("labels"), {}, "labels: holds no image", "name a folder"),
    "an empty folder of further images": (
        lambda folder: (folder / "more").mkdir(),
        {"unlabeled": ["more"]},
        "more: holds no image",
        "name a folder",
    ),
    "further images that are there already": (
        nothing,
        {"unlabeled": ["scans"]},
        "scans: holds no image that is not there already",
        "correct --unlabeled",
    ),
    "swapped folders": (swap, {}, "labels/a.nii.gz: is an image, and", "swap --images and --labels"),
    "no label in the one folder": (
        nothing,
        ONE,
        "scans: none of the 6 files is named as a label",
        "pass --labels FOLDER, or --suffix",
    ),
    "only labels in the one folder": (
        lambda folder: [rename(f"scans/{name}.nii.gz", f"scans/{name}_seg.nii.gz")(folder) for name in "abcdef"],
        ONE,
        "none of the 6 files is named as an image",
        "pass --labels",
    ),
    "a label without image": (
        rename("labels/a.nii.gz", "labels/aa.nii.gz"),
        {},
        "labels/aa.nii.gz: the label matches no image; the nearest is a",
        "name labels like their images",
    ),
    "labels with names of their own": (
        lambda folder: [
            rename(f"labels/{name}.nii.gz", f"labels/{number}.nii.gz")(folder) for number, name in enumerate("abcd")
        ],
        {},
        "labels/0.nii.gz: no label has an image of its name; the image nearest to this one is",
        "name labels like their images",
    ),
    "two labels of an image": (
        put("labels/a_seg.nii.gz", a_label()),
        {},
        "labels: a.nii.gz and a_seg.nii.gz are both labels of the image a",
        "keep one, or merge them",
    ),
    "two images of a name": (
        put("scans/a.nrrd", an_image()),
        {},
        "a.nrrd: has the same name as a.nii.gz",
        "keep one of them, or rename it",
    ),
    "one channel missing": (
        one_channel_missing,
        {},
        "scans: the channel 0001 of e is missing; it has 0000 only",
        "add this file, or take the other channels of this case out",
    ),
    "a file that is no channel": (
        a_file_without_channel,
        {},
        "new.nii.gz: does not end with a channel (0000, 0001)",
        "rename it",
    ),
    "2D among 3D": (
        put("scans/g.png", a_picture()),
        {},
        "g.png: is 2D, while a.nii.gz and most others are 3D",
        "take one kind of them out",
    ),
    "gray among color": (
        gray_among_color,
        {},
        "a.png: is 2D, while b.png and most others are 2D with 3 channels",
        "take one kind of them out",
    ),
    "an image with and without an ending": (
        lambda folder: [
            rename("labels/a.nii.gz", "labels/a_seg.nii.gz")(folder),
            *(rename(f"scans/{name}.nii.gz", f"scans/{name}_T1w.nii.gz")(folder) for name in "abcdef"),
            put("scans/e.nii.gz", an_image())(folder),
        ],
        {},
        "e_T1w.nii.gz: has the same name as e.nii.gz",
        "keep one of them",
    ),
    "a film": (put("scans/a.nii.gz", FILM), {}, "a.nii.gz: is a volume with a fourth axis of 3", "one file a channel"),
    "several pages": (two_pages, {}, "a.tif: has several pages", "convert it to NIfTI"),
    "a damaged image": (
        lambda folder: (folder / "scans" / "e.nii.gz").write_bytes(b"nothing"),
        {},
        "scans/e.nii.gz: cannot be read (",
        "copy or export it again",
    ),
    "a damaged image of ITK": (
        lambda folder: (folder / "scans" / "g.nrrd").write_bytes(b"NRRD0004\n"),
        {},
        "scans/g.nrrd: cannot be read (",
        "copy or export it again",
    ),
    "a damaged label": (
        truncate("labels/b.nii.gz"),
        {},
        "labels/b.nii.gz: cannot be read (",
        "copy or export it again",
    ),
    "a link out of the folder": (a_link, {}, "leads out of", "put the file itself into that folder"),
    "label values between": (
        put("labels/a.nii.gz", a_label(1).astype(np.float32) * 0.5),
        {},
        "a.nii.gz: label values are not whole numbers, such as 0.5",
        "resample labels with nearest neighbors",
    ),
    "an image for a label": (
        put("labels/b.nii.gz", an_image()),
        {},
        "b.nii.gz: has 2",  # and more values
        "swap --images and --labels",
    ),
    "label values that are not finite": (
        put("labels/b.nii.gz", np.where(a_label() > 0, np.nan, 0).astype(np.float32)),
        {},
        "b.nii.gz: the annotation has values that are not finite",
        "export it again",
    ),
    "huge label values": (
        put("labels/b.nii.gz", a_label().astype(np.float64) * 2**25),
        {},
        "b.nii.gz: has label values of up to 33554432",
        "number the structures from 1",
    ),
    "a label in color": (in_color, {}, "labels/a.png: the annotation is in color", "save it in gray"),
    "a JPEG label of another value": (a_jpeg_of_many, {}, "a.jpg: is a JPEG mask whose values are blurred", "as PNG"),
    "a value without name": (
        put("labels/c.nii.gz", a_label(1, 4)),
        {"label_names": ["1=aorta"]},
        "c.nii.gz: has the value 4, and only 1 have names",
        "or add --label 4=NAME",
    ),
    "a name without value": (
        nothing,
        {"label_names": ["aorta"]},
        "'aorta' is neither VALUE=NAME nor a file",
        "1=aorta",
    ),
    "two names of a value": (nothing, {"label_names": ["1=a", "1=b"]}, "the value 1 has two names", "give one"),
    "one name of two values": (
        put("labels/c.nii.gz", a_label(1, 4)),
        {"label_names": ["1=a", "4=a"]},
        "labels: two label values are called 'a'",
        "give each a name of its own",
    ),
    "a table without names": (
        lambda folder: (folder / "table.txt").write_text("nothing\n"),
        {"label_names": ["table.txt"]},
        "table.txt: names no label value",
        "export the label descriptions",
    ),
    "only background": (
        lambda folder: [put(f"labels/{name}.nii.gz", 0 * a_label())(folder) for name in "abcd"],
        {},
        "labels: the annotations hold no value but 0",
        "annotate a structure",
    ),
    "all but background ignored": (
        nothing,
        {"ignore": 1},
        "labels: the annotations hold no value but 0 and 1",
        "correct --labels or --ignore",
    ),
    "too many for validation": (
        nothing,
        {"validation": 4},
        "cannot hold out 4 of 4 labeled subjects",
        "pass --validation with a number from 0 to 3",
    ),
    "a pattern that matches nothing": (
        nothing,
        {"subject": r"(patient\d+)"},
        "matches none of 6 names, such as 'a'",
        "correct --subject",
    ),
    "a pattern that misses some": (nothing, {"subject": "([a-d])"}, "matches not 2 of 6 names, such as 'e'", "correct"),
    "a pattern without group": (nothing, {"subject": "."}, "has no group", "put the subject in parentheses"),
    "no pattern": (nothing, {"subject": "("}, "is no regular expression", "write one such as"),
    "a value that dataset.json lacks": (
        a_dataset_json({"background": 0, "LV": 2}),
        RAW,
        "a.nii.gz: has the value 1, and only 0, 2 have names",
        "correct the annotation",
    ),
    "regions": (
        a_dataset_json({"background": 0, "whole": [1, 2]}),
        RAW,
        "dataset.json: its label 'whole' is a region of several values",
        "name single values",
    ),
    "other channels in dataset.json": (
        a_dataset_json({"background": 0, "LV": 1}, channels=3),
        RAW,
        "dataset.json: it names 3 channels, and images have 2",
        "correct `channel_names`",
    ),
    "ignore twice": (
        a_dataset_json({"background": 0, "LV": 1, "ignore": 2}),
        RAW | {"ignore": 255},
        "the value 2 is called `ignore` there, and --ignore is 255",
        "leave --ignore out",
    ),
    "a list that is none": (a_list({"a": 1}), LIST, "list.json: lists no cases", "name a datalist"),
    "a list that is not JSON": (a_list("{"), LIST, "list.json: is not JSON", "make it anew"),
    "a list with a missing file": (
        a_list({"training": [{"image": "scans/z.nii.gz"}]}),
        LIST,
        "scans/z.nii.gz: the file is missing",
        "correct list.json",
    ),
    "a list without labels": (
        a_list({"training": [{"image": "scans/a.nii.gz"}]}),
        LIST,
        "no image has a label",
        "annotate at least one",
    ),
    "a list without image": (a_list({"training": [{}]}), LIST, "`training` item 0 has no `image`", "give each item"),
    "a subject in two lists": (
        a_list(
            {
                "training": [{"image": "scans/a.nii.gz", "label": "labels/a.nii.gz", "subject": "x"}],
                "test": [{"image": "scans/b.nii.gz", "label": "labels/b.nii.gz", "subject": "x"}],
            }
        ),
        LIST,
        "the subject x is to learn from, and in the list 'test'",
        "take it out of one of them",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_ends_in_one_message(folders: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, given, cause, remedy = MISTAKES[name]
    change(folders)
    monkeypatch.chdir(folders)
    options = {"images": "scans", "labels": "labels"} | given
    images, labels = Path(options.pop("images")), options.pop("labels")
    options["unlabeled"] = [Path(folder) for folder in options.get("unlabeled", ())]
    with pytest.raises(DatalistError) as error:
        collect_folder(images, labels and Path(labels), out=Path("out"), **options)
    message = str(error.value)
    assert cause in message
    assert remedy in message
    assert "\n" not in message
    assert not Path("out", "datalist.json").exists()


def moved(file: Path, shift: float) -> None:
    image = nibabel.load(file)
    affine = image.affine.copy()
    affine[0, 3] += shift
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), file)


READ: dict[str, tuple[Change, str]] = {
    "another shape": (
        put("labels/a.nii.gz", a_label(shape=(8, 7, 4))),
        "its shape (8, 7, 4) is not (8, 7, 5), the shape of its image a.nii.gz",
    ),
    "another place": (lambda folder: moved(folder / "labels/a.nii.gz", 1.5), "lies up to 1.5 voxels beside its image"),
    "nothing annotated": (put("labels/a.nii.gz", 0 * a_label()), "the label of a labeled case is all background"),
    "a damaged image": (
        lambda folder: [put("scans/e.nii.gz", an_image(0, (30, 30, 9)))(folder), truncate("scans/e.nii.gz")(folder)],
        "cannot be read to its end",
    ),
    "NaN": (put("scans/e.nii.gz", np.full((8, 7, 5), np.nan, np.float32)), "280 voxels are NaN or infinite"),
}


@pytest.mark.parametrize("name", READ)
def test_the_check_finds_what_only_voxels_tell(folders: Path, name: str) -> None:
    change, cause = READ[name]
    change(folders)
    collected = collect_folder(folders / "scans", folders / "labels", out=folders / "out", validation=0)
    (problem,) = check_datalist(collected.datalist, collected.dataset_dir)
    assert cause in problem.cause
    assert Path(problem.file).parent.name in ("labels", "scans")


def test_rounding_of_a_place_is_no_mistake(folders: Path) -> None:
    moved(folders / "labels/a.nii.gz", 1e-4)
    collected = collect_folder(folders / "scans", folders / "labels", out=folders / "out")
    assert check_datalist(collected.datalist, collected.dataset_dir) == []


def test_images_for_inference_that_are_not_there(folders: Path) -> None:
    with pytest.raises(DatalistError, match=r"nowhere: the file or folder is missing; correct --images"):
        image_cases([folders / "nowhere"])


def test_inputs_stay_as_they_are(folders: Path) -> None:
    before = read_scan(folders / "scans" / "a.nii.gz").sum(), sorted(folders.rglob("*"))
    collect_folder(folders / "scans", folders / "labels", out=folders / "out")
    after = read_scan(folders / "scans" / "a.nii.gz").sum(), sorted(folders.rglob("*"))
    assert before[0] == after[0]
    assert {*after[1]} - {*before[1]} == {folders / "out", folders / "out" / "datalist.json"}
