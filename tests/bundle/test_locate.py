# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from metassl_monai.bundle import UserError
from metassl_monai.bundle.locate import (
    bundle_command,
    bundle_names,
    bundle_path,
    config_files,
    copy_bundle,
    run_command,
)


def test_a_bundle_is_found_by_name_and_by_path(tmp_path):
    for name in bundle_names():
        assert bundle_path(str(bundle_path(name))).samefile(bundle_path(name))


def test_a_bundle_in_the_working_folder_goes_before_one_of_the_package(tmp_path, monkeypatch):
    copy_bundle("phantom_segmentation", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert bundle_path("phantom_segmentation").resolve() == (tmp_path / "phantom_segmentation").resolve()
    assert bundle_path("la_atrium_mri_segmentation").is_absolute()


def test_an_unknown_bundle_names_the_known_ones():
    with pytest.raises(UserError, match=r"no bundle 'acdc'.*acdc_cardiac_mri_segmentation"):
        bundle_path("acdc")


def test_an_unknown_config_names_the_known_ones():
    with pytest.raises(UserError, match=r"has no config 'meanteacher'.*mean_teacher"):
        config_files(bundle_path("phantom_segmentation"), ["train", "meanteacher"])


def test_a_copy_is_whole_and_never_overwrites(tmp_path):
    copy = copy_bundle("phantom_segmentation", tmp_path)
    source = bundle_path("phantom_segmentation")
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    assert {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()} == files
    with pytest.raises(UserError, match="exists already"):
        copy_bundle("phantom_segmentation", tmp_path)


def test_the_command_is_the_one_of_monai(tmp_path):
    one, two = tmp_path / "train.json", tmp_path / "cps.json"
    assert bundle_command("training", [one]) == [
        *("python", "-m", "monai.bundle", "run", "training", "--config_file"),
        str(one),
    ]
    assert bundle_command("training", [one, two], ["--seed", "1"])[-3:] == [f"['{one}', '{two}']", "--seed", "1"]


def test_a_failing_command_ends_with_its_status(capfd):
    with pytest.raises(UserError) as error:
        run_command(["python", "-c", "raise SystemExit(3)"])
    assert error.value.code == 3
    assert capfd.readouterr().out.startswith("$ python -c")
