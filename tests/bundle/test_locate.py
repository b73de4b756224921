# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shlex
import time

import pytest

from metassl_monai.bundle import UserError
from metassl_monai.bundle.locate import (
    bundle_command,
    bundle_names,
    bundle_path,
    config_files,
    copy_bundle,
    run_command,
    run_side_by_side,
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


@pytest.mark.parametrize(
    ("name", "hint"), [("meanteacher", r"did you mean mean_teacher\?"), ("x", r"it has .*cps, .*mean_teacher")]
)
def test_an_unknown_config_names_the_nearest_or_the_known_ones(name, hint):
    with pytest.raises(UserError, match=f"has no config '{name}': {hint}"):
        config_files(bundle_path("phantom_segmentation"), ["train", name])


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


@pytest.mark.parametrize("word", ["plain", "a b", "['/a/b.json','/c d.json']", "it's $HOME", "['a']!", '["a"]', ""])
def test_a_printed_command_can_be_pasted(word, capfd):
    command = ["python", "-c", "pass", word]
    run_command(command)
    assert shlex.split(capfd.readouterr().out.removeprefix("$ ")) == command


def test_a_quiet_command_lets_mistakes_through_alone(monkeypatch, capfd):
    monkeypatch.setenv("METASSL_QUIET", "1")
    run_command(["python", "-c", "import sys, warnings; print(1); warnings.warn('2'); sys.stderr.write('3')"])
    assert tuple(capfd.readouterr()) == ("", "3")


def test_commands_run_side_by_side_with_a_log_each(tmp_path):
    logs = {tmp_path / name: ["python", "-c", f"print({name!r})"] for name in ("a", "b")}
    run_side_by_side(logs)
    assert [log.read_text().splitlines()[1:] for log in logs] == [["a"], ["b"]]


def test_one_that_fails_is_named_and_stops_the_other(tmp_path):
    failing = ["python", "-c", "raise SystemExit('the reason')"]
    start = time.monotonic()
    with pytest.raises(UserError, match="first: a command failed"):
        run_side_by_side(
            {tmp_path / "first": failing, tmp_path / "second": ["python", "-c", "import time; time.sleep(60)"]}
        )
    assert time.monotonic() - start < 30
    assert (tmp_path / "first").read_text().endswith("the reason\n")
