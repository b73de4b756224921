# SPDX-License-Identifier: Apache-2.0
"""What lies in plain folders, as a datalist that the check finds sound."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from metassl_monai.data import check_datalist, load_datalist, read_datalist, read_label, read_scan
from metassl_monai.planning import Case, Collected, collect_folder, image_cases
from metassl_monai.planning.subjects import name_subjects

from .writing import a_label, a_picture, an_image, write_scan, write_series


def sound(collected: Collected) -> dict:
    """The datalist, after every file was read and found sound."""
    assert check_datalist(collected.datalist, collected.dataset_dir) == []
    return read_datalist(collected.datalist)


def names(datalist: dict, *keys: str) -> list[str]:
    return sorted(item["case"] for key in keys for item in datalist[key])


def pairs(datalist: dict) -> dict[str, str]:
    items = [item for key in ("labeled", "validation", "test") for item in datalist[key]]
    return {item["image"]: item["label"] for item in items}


def collect(folder: Path, **options: object) -> tuple[Collected, dict]:
    """Collect ``scans`` and ``labels``."""
    collected = collect_folder(folder / "scans", folder / "labels", out=folder / "out", **options)
    return collected, sound(collected)


def test_two_folders(folders: Path) -> None:
    collected, datalist = collect(folders)
    assert collected.dataset_dir == folders
    assert collected.layout == "folder"
    assert collected.cases == {"labeled": 3, "unlabeled": 2, "validation": 1, "test": 0, "monitor": 0}
    assert collected.subjects == collected.cases
    assert names(datalist, "unlabeled") == ["e", "f"]
    assert names(datalist, "labeled", "validation") == ["a", "b", "c", "d"]
    assert datalist["labels"] == {"0": "background", "1": "label 1"}
    assert "label_values" not in datalist
    assert "channels" not in datalist
    assert pairs(datalist) == {f"scans/{name}.nii.gz": f"labels/{name}.nii.gz" for name in "abcd"}
    assert collected.remarks == ()
    again, repeated = collect(folders)
    assert (again, repeated) == (collected, datalist)
    assert {names(collect(folders, seed=seed)[1], "validation")[0] for seed in range(20)} == {*"abcd"}


def test_validation_can_be_chosen(folders: Path) -> None:
    assert len(collect(folders, validation=0)[1]["validation"]) == 0
    assert len(collect(folders, validation=3)[1]["validation"]) == 3


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{}.nii.gz", "{}_label.nii.gz"),
        ("{}_image.nrrd", "{}_Seg.nii.gz"),
        ("scan {}.mha", "scan {}-mask.nrrd"),
        ("v1.2.{}.NII.GZ", "v1.2.{}.gt.nii"),
        ("p{}/image.nii", "p{}/segmentation.mha"),
        ("img000{}.nii.gz", "label000{}.nii.gz"),
        ("volume-{}.nii", "segmentation-{}.nii"),
        ("Patient_{}.nii.gz", "Patient_{}_GT.nii.gz"),
        ("case_{}/imaging.nii.gz", "case_{}/segmentation.nii.gz"),
        ("sub-0{}/anat/sub-0{}_T1w.nii.gz", "sub-0{}/anat/sub-0{}_space-orig_desc-manual_dseg.nii.gz"),
    ],
)
def test_one_folder_whose_names_tell_labels_apart(tmp_path: Path, image: str, label: str) -> None:
    for number in range(1, 4):
        write_scan(tmp_path / "data" / image.format(number, number), an_image(number))
        if number < 3:
            write_scan(tmp_path / "data" / label.format(number, number), a_label())
    datalist = sound(collect_folder(tmp_path / "data", out=tmp_path / "data" / "out"))
    assert pairs(datalist) == {image.format(number, number): label.format(number, number) for number in (1, 2)}
    assert [item["image"] for item in datalist["unlabeled"]] == [image.format(3, 3)]


def test_a_suffix_of_ones_own(tmp_path: Path) -> None:
    for name in ("a", "b", "a_mask"):
        write_scan(tmp_path / f"{name}.nii", an_image())
    write_scan(tmp_path / "a_hand.nii", a_label())
    datalist = sound(collect_folder(tmp_path, out=tmp_path / "out", suffix="_hand"))
    assert pairs(datalist) == {"a.nii": "a_hand.nii"}
    assert names(datalist, "unlabeled") == ["a_mask", "b"]


def test_names_of_many_kinds(tmp_path: Path) -> None:
    stems = ["Größe 1", "頭部.001", "Ünïcode (2)", "UPPER.case.v2", "mri_Scan", "дата"]
    for stem in stems:
        write_scan(tmp_path / "scans" / f"{stem}.nii.gz", an_image())
        # the file systems of some systems write accents apart
        apart = unicodedata.normalize("NFD", stem)
        write_scan(tmp_path / "labels" / f"{apart}.nrrd", a_label())
    datalist = collect(tmp_path)[1]
    assert names(datalist, "labeled", "validation") == sorted(stems)


def test_equal_names_in_different_folders_keep_apart(tmp_path: Path) -> None:
    for site, value in (("A", 10), ("B", 20), ("C", 30)):
        write_scan(tmp_path / "scans" / site / "scan.nii.gz", np.full((8, 7, 5), value, np.int16))
    for site, value in (("A", 1), ("B", 2)):
        write_scan(tmp_path / "labels" / site / "scan.nii.gz", a_label(value))
    collected, datalist = collect(tmp_path)
    assert names(datalist, "labeled") == ["A/scan", "B/scan"]
    assert names(datalist, "unlabeled") == ["C/scan"]
    assert {item["subject"] for item in datalist["labeled"]} == {"A/scan", "B/scan"}
    for item in load_datalist(collected.datalist, "labeled", collected.dataset_dir):
        assert read_scan(item["image"]).max() / 10 == read_label(item["label"], datalist).max()


def test_labels_may_lie_flat_beside_images_in_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_scan(tmp_path / "scans" / f"site_{name}" / f"{name}.nii.gz", an_image())
    write_scan(tmp_path / "labels" / "a.nii.gz", a_label())
    assert pairs(collect(tmp_path)[1]) == {"scans/site_a/a.nii.gz": "labels/a.nii.gz"}


def test_bids_names_give_subjects_and_frames_stay_together(tmp_path: Path) -> None:
    for subject in range(1, 7):
        for visit in (1, 2):
            stem = f"sub-0{subject}/ses-{visit}/anat/sub-0{subject}_ses-{visit}"
            write_scan(tmp_path / "scans" / f"{stem}_T1w.nii.gz", an_image())
            if subject < 5:
                write_scan(tmp_path / "labels" / f"{stem}_dseg.nii.gz", a_label())
    collected, datalist = collect(tmp_path)
    assert collected.subjects == {"labeled": 3, "unlabeled": 2, "validation": 1, "test": 0, "monitor": 0}
    assert collected.cases == {"labeled": 6, "unlabeled": 4, "validation": 2, "test": 0, "monitor": 0}
    assert {item["subject"] for item in datalist["unlabeled"]} == {"sub-05", "sub-06"}
    assert collected.channels == ()


def test_a_pattern_gives_subjects_and_their_other_frames_are_left_out(tmp_path: Path) -> None:
    for patient in range(1, 6):
        for frame in (1, 12, 20):
            write_scan(tmp_path / "scans" / f"patient{patient}_frame{frame}.nii.gz", an_image())
    for patient in range(1, 5):
        for frame in (1, 12):
            write_scan(tmp_path / "labels" / f"patient{patient}_frame{frame}_gt.nii.gz", a_label())
    collected, datalist = collect(tmp_path, subject=r"(patient\d+)_")
    assert collected.subjects == {"labeled": 3, "unlabeled": 1, "validation": 1, "test": 0, "monitor": 0}
    assert names(datalist, "unlabeled") == ["patient5_frame1", "patient5_frame12", "patient5_frame20"]
    assert collected.remarks[0].startswith("4 images have no label while others of the same subject have one")
    # names of frames are known without a pattern, and others are not
    assert collect(tmp_path)[1] == datalist


def test_a_remark_tells_of_names_that_may_be_of_one_subject(tmp_path: Path) -> None:
    for name in ("p01_rest", "p01_stress", "p02_rest"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", an_image())
        write_scan(tmp_path / "labels" / f"{name}.nii.gz", a_label())
    collected = collect(tmp_path)[0]
    assert collected.subjects["labeled"] == 3
    assert collected.remarks[0].startswith("p01_rest and p01_stress are taken for two subjects; if they are one, pass")
    assert collect(tmp_path, subject="(p[0-9]+)")[0].subjects["labeled"] == 2


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("patient001_frame01", "patient001"),
        ("patient001_frame01_slice_3", "patient001"),
        ("A-visit2", "A"),
        ("heart7_ED", "heart7"),
        ("sub-x1_ses-2_T1w", "sub-x1"),
        ("siteA/sub-01/ses-1/scan", "siteA/sub-01"),
        ("siteA/mysub-01", "siteA/mysub-01"),
        ("time_7", "time_7"),
        ("scan_0007", "scan_0007"),
    ],
)
def test_subjects_of_names(name: str, subject: str) -> None:
    assert name_subjects([Case(name, ())], None, Path())[0].subject == subject


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 2), None),
        ((3, 7), {"0": 0, "3": 1, "7": 2}),
        ((255,), {"0": 0, "255": 1}),
        ((-5, 300), {"0": 0, "-5": 1, "300": 2}),
    ],
)
@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_raw_values_of_any_type_become_classes(tmp_path: Path, values: tuple, expected: object, dtype: type) -> None:
    for name in "ab":
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", an_image())
    write_scan(tmp_path / "labels" / "a.nii.gz", a_label(*values, dtype=dtype))
    collected, datalist = collect(tmp_path)
    assert datalist.get("label_values") == expected
    label = read_label(load_datalist(collected.datalist, "labeled", collected.dataset_dir)[0]["label"], datalist)
    assert label[1, 2, 0] == sorted(values).index(values[0]) + 1
    assert label.unique().tolist() == list(range(len(values) + 1))


def test_what_nobody_annotated_is_no_class(tmp_path: Path) -> None:
    for name in "ab":
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", an_image())
    label = a_label(2)
    label[..., 1:] = 255
    write_scan(tmp_path / "labels" / "a.nii.gz", label)
    collected = collect_folder(tmp_path / "scans", tmp_path / "labels", out=tmp_path / "out", ignore=255)
    datalist = read_datalist(collected.datalist)
    assert datalist["ignore"] == 255
    assert datalist["labels"] == {"0": "background", "1": "label 2"}
    assert datalist["label_values"] == {"0": 0, "2": 1}


def test_scribbles_on_what_nobody_annotated(tmp_path: Path) -> None:
    for name in "ab":
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", an_image())
    write_scan(tmp_path / "labels" / "a.nii.gz", a_label(1, 2))
    collected = collect_folder(tmp_path / "scans", tmp_path / "labels", out=tmp_path / "out", ignore=0)
    datalist = read_datalist(collected.datalist)
    assert datalist["label_values"] == {"1": 0, "2": 1}


def test_further_folders_of_unlabeled_images(folders: Path) -> None:
    for name in ("a", "z"):
        write_scan(folders / "more" / f"{name}.mha", an_image(9))
    collected, datalist = collect(folders, unlabeled=[folders / "more"])
    assert names(datalist, "unlabeled") == ["e", "f", "more/a", "z"]
    assert collected.cases["labeled"] == 3


def test_a_series_in_a_folder_is_one_image(tmp_path: Path) -> None:
    for number, patient in enumerate(("Anna", "Ben", "Cleo.1")):
        write_series(
            tmp_path / "scans" / patient / f"1.2.{number}" / f"1.2.{number}.3", an_image(number), f"1.2.{number}"
        )
    label = a_label(1)
    # a reader turns LPS into RAS
    import nibabel

    (tmp_path / "labels").mkdir()
    for patient in ("Anna", "Cleo.1"):
        nibabel.save(nibabel.Nifti1Image(label, np.diag([-1, -1, 2, 1])), tmp_path / "labels" / f"{patient}.nii.gz")
    datalist = collect(tmp_path)[1]
    assert names(datalist, "labeled") == ["Anna", "Cleo.1"]
    assert names(datalist, "unlabeled") == ["Ben"]
    assert datalist["labeled"][0]["image"] == "scans/Anna/1.2.0/1.2.0.3"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)])
def test_pictures(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    for number in range(3):
        write_scan(tmp_path / "scans" / f"{number}.{suffix}", a_picture(number, shape))
    mask = np.zeros((40, 30), np.uint8)
    mask[10:30, 5:25] = 255
    for number in range(2):
        write_scan(tmp_path / "labels" / f"{number}.png", mask)
    collected, datalist = collect(tmp_path)
    assert check_datalist(collected.datalist, collected.dataset_dir, kind="picture") == []
    assert datalist["label_values"] == {"0": 0, "255": 1}
    assert collected.channels == ()


@pytest.mark.parametrize("colors", [(), (3,)])
def test_jpeg_masks_are_cut_in_the_middle(tmp_path: Path, colors: tuple[int, ...]) -> None:
    mask = np.zeros((40, 30, *colors), np.uint8)
    mask[10:30, 5:25] = 255
    for number in range(2):
        write_scan(tmp_path / "scans" / f"{number}.jpg", a_picture(number))
    write_scan(tmp_path / "labels" / "0.jpg", mask)
    collected, datalist = collect(tmp_path)
    assert datalist["label_threshold"] == 128
    item = load_datalist(collected.datalist, "labeled", collected.dataset_dir)[0]
    assert read_label(item["label"], datalist).sum() == 400


def test_channels_by_names(tmp_path: Path) -> None:
    for case in ("p1", "p2", "p3"):
        for channel, value in (("t1", 1), ("flair", 2), ("t1ce", 3)):
            write_scan(tmp_path / "data" / case / f"{case}_{channel}.nii.gz", np.full((8, 7, 5), value, np.int16))
        if case != "p3":
            write_scan(tmp_path / "data" / case / f"{case}_seg.nii.gz", a_label())
    collected = collect_folder(tmp_path / "data", out=tmp_path / "out")
    datalist = sound(collected)
    assert collected.channels == ("flair", "t1", "t1ce") == tuple(datalist["channels"])
    assert datalist["unlabeled"][0]["image"] == [f"p3/p3_{channel}.nii.gz" for channel in ("flair", "t1", "t1ce")]
    item = load_datalist(collected.datalist, "labeled", collected.dataset_dir)[0]
    assert read_scan(item["image"])[:, 0, 0, 0].tolist() == [2, 1, 3]
    found = image_cases([tmp_path / "data" / "p3"], collected.endings)
    assert [(case.name, len(case.images)) for case in found] == [("p3", 3)]


def test_images_for_inference_in_files_and_folders(folders: Path) -> None:
    found = image_cases([folders / "scans", folders / "labels" / "a.nii.gz"])
    assert [case.name for case in found] == ["a", "scans/a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("Scans", "masks"), ("imagesTr", "labelsTr")])
def test_one_folder_that_holds_two(tmp_path: Path, images: str, labels: str) -> None:
    for name in ("a", "b"):
        write_scan(tmp_path / images / f"{name}.nii.gz", an_image())
    write_scan(tmp_path / labels / "a.nii.gz", a_label())
    datalist = sound(collect_folder(tmp_path, out=tmp_path / "out"))
    assert pairs(datalist) == {f"{images}/a.nii.gz": f"{labels}/a.nii.gz"}
    assert names(datalist, "unlabeled") == ["b"]


def test_a_structure_that_few_annotations_have_is_told(folders: Path) -> None:
    write_scan(folders / "labels" / "a.nii.gz", a_label(1, 2))
    collected = collect(folders, label_names=["1=heart", "2=aorta"])[0]
    assert collected.remarks[0].startswith("aorta is in 1 of 4 annotations only")


def test_series_of_one_patient_keep_their_folders_apart(tmp_path: Path) -> None:
    for number in (1, 2):
        write_series(tmp_path / "scans" / "Anna" / f"day{number}", an_image(number), f"1.2.{number}")
    write_series(tmp_path / "scans" / "Ben" / "x" / "y", an_image(3), "1.2.3")
    assert [case.name for case in image_cases([tmp_path / "scans"])] == ["Anna/day1", "Anna/day2", "Ben"]
    assert [case.name for case in image_cases([tmp_path / "scans" / "Anna" / "day1"])] == ["day1"]


def test_linked_folders_are_followed_and_loops_end(folders: Path) -> None:
    (folders / "data").mkdir()
    (folders / "data" / "scans").symlink_to(folders / "scans")
    (folders / "scans" / "loop").symlink_to(folders / "scans")
    collected = collect_folder(folders / "data" / "scans", folders / "labels", out=folders / "out")
    assert collected.cases["labeled"] == 3
    assert collected.dataset_dir == folders
    sound(collected)


def test_remarks(folders: Path) -> None:
    for name in "bcdef":
        (folders / "scans" / f"{name}.nii.gz").unlink()
        (folders / "labels" / f"{name}.nii.gz").unlink(missing_ok=True)
    collected, _ = collect(folders)
    assert [text.split(":")[0] for text in collected.remarks] == [
        "no image is without label",
        "one labeled subject only",
        "no subject is held out for validation",
    ]
