# SPDX-License-Identifier: Apache-2.0
"""The phantom: the same for the same seed, with the geometry, structures and overlaps of real cine MR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from metassl_monai.data import DatalistError, check_datalist, make_phantom, read_datalist

SMALL: dict[str, Any] = {"cases": 5, "labeled": 2, "validation": 1, "test": 1, "size": (32, 32, 4)}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantom(tmp_path_factory.mktemp("phantom"), cases=6, labeled=2, validation=1, test=1).parent


def _bytes(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _arrays(root: Path, folder: str) -> list[np.ndarray]:
    return [np.asarray(nibabel.load(path).dataobj) for path in sorted((root / folder).iterdir())]  # type: ignore


def test_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_phantom(tmp_path / name, **SMALL)
    make_phantom(tmp_path / "other", **SMALL, seed=1)
    one, two, other = (_bytes(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in one)


def test_datalist_is_sound_and_all_files_pass_the_check(phantom: Path) -> None:
    datalist = read_datalist(phantom / "datalist.json")
    counts = {"labeled": 2, "unlabeled": 2, "validation": 1, "test": 1, "monitor": 2}
    assert {key: len(datalist[key]) for key in counts} == datalist["source"]["counts"] == counts
    assert [item["subject"] for item in datalist["monitor"]] == [item["subject"] for item in datalist["unlabeled"]]
    assert check_datalist(phantom / "datalist.json", phantom) == []


def test_geometry_is_oblique_anisotropic_and_different_in_each_case(phantom: Path) -> None:
    images: list[Any] = [nibabel.load(path) for path in sorted((phantom / "images").iterdir())]
    for image in images:
        spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
        assert np.linalg.matrix_rank(image.affine) == 4
        assert (np.abs(image.affine[:3, :3] / spacing) > 0.05).sum(0).min() >= 2
        assert spacing[:2] == pytest.approx(1.5, abs=0.21)
        assert 7 <= spacing[2] <= 10
        assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    assert len({image.affine.tobytes() for image in images}) == len(images)


def test_structures_are_in_most_slices(phantom: Path) -> None:
    labels = _arrays(phantom, "labels")
    assert all(label.dtype == np.uint8 and set(np.unique(label)) == {0, 1, 2, 3} for label in labels)
    slices = np.concatenate([label.reshape(-1, label.shape[2]).T for label in labels])
    assert all((slices == value).any(1).mean() > 0.8 for value in (1, 2, 3))
    # A heart fills some percents of the field of view, the muscle less than a tenth.
    assert 0.02 < (slices == 2).mean() < 0.1


def test_intensities_overlap_as_in_cine_mr(phantom: Path) -> None:
    for image, label in zip(_arrays(phantom, "images"), _arrays(phantom, "labels"), strict=True):
        assert image.dtype == np.int16
        assert 100 < np.percentile(image, 99) < 1500
        right, muscle, left = (np.median(image[label == value]) for value in (1, 2, 3))
        assert left > 1.2 * muscle
        assert right > 1.2 * muscle
        # No threshold finds the heart: its surroundings hold plenty of the intensities of both blood and muscle.
        for value in (2, 3):
            low, high = np.percentile(image[label == value], (10, 90))
            alike = (image >= low) & (image <= high) & (label == 0)
            assert alike.sum() > 0.2 * (label == value).sum()


def test_noise_disturbs_only_the_labels_of_labeled_cases(tmp_path: Path) -> None:
    clean, noisy = (
        _bytes(make_phantom(tmp_path / str(noise), **SMALL, annotation_noise=noise).parent) for noise in (0.0, 1.0)
    )
    changed = {name for name in clean if clean[name] != noisy[name]}
    assert changed == {"labels/phantom001.nii.gz", "labels/phantom002.nii.gz", "datalist.json"}


def test_noise_grows_with_its_strength_and_keeps_the_structures(tmp_path: Path) -> None:
    options = SMALL | {"size": (64, 64, 4)}
    roots = [make_phantom(tmp_path / str(noise), **options, annotation_noise=noise).parent for noise in (0, 0.3, 1)]
    clean, weak, strong = (_arrays(root, "labels")[:2] for root in roots)
    changes = [[np.mean(a != b) for a, b in zip(clean, other, strict=True)] for other in (weak, strong)]
    assert all(0 < small < large < 0.2 for small, large in zip(*changes, strict=True))
    assert all(set(np.unique(label)) == {0, 1, 2, 3} for label in strong)
    assert all((label > 0).sum() < (before > 0).sum() for label, before in zip(strong, clean, strict=True))


def test_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DatalistError, match="not an empty folder"):
        make_phantom(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "options", [{"labeled": 0}, {"cases": 3}, {"validation": -1}, {"annotation_noise": 2}, {"annotation_noise": -0.1}]
)
def test_impossible_requests_write_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(DatalistError):
        make_phantom(tmp_path / "set", **(SMALL | options))
    assert not (tmp_path / "set").exists()
