# SPDX-License-Identifier: Apache-2.0
"""The configs of bundles are what the recipes give, and the recipes say each thing once."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from metassl_monai.bundle.locate import bundle_path
from metassl_monai.recipes import bundle_configs, data_sets, format_config, lay_upon, methods, neutral_training, part
from metassl_monai.recipes.__main__ import files_of

ROOT = Path(__file__).parents[2]


def test_the_bundles_are_what_the_recipes_give():
    """Else run ``python -m metassl_monai.recipes``."""
    wrong = [file.name for file, text in files_of(ROOT / "bundles") if file.read_text(encoding="utf-8") != text]
    assert wrong == []


def test_the_check_names_a_file_that_was_changed_and_writing_mends_it(tmp_path):
    for data_set in data_sets():
        name = part(f"data_sets/{data_set}")["bundle"]
        for place in ("configs", "experiments"):
            for file in (bundle_path(name) / place).glob("*.json"):
                target = tmp_path / name / place / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    changed = tmp_path / "la_atrium_mri_segmentation" / "configs" / "cps.json"
    changed.write_text(changed.read_text().replace("50000", "40000"))
    command = [sys.executable, "-m", "metassl_monai.recipes", str(tmp_path)]
    check = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert check.returncode == 1
    assert check.stderr == f"{changed} is not what the recipes give\n"
    assert subprocess.run(command, check=False).returncode == 0
    assert subprocess.run([*command, "--check"], check=False).returncode == 0


@pytest.mark.parametrize("data_set", data_sets())
def test_an_overlay_gives_its_method_whatever_the_default_is(data_set):
    """With its overlay ``train.json`` is the neutral config with the method's ids, nothing of the default's left."""
    configs, neutral = bundle_configs(data_set), neutral_training(data_set)
    default = part(f"data_sets/{data_set}")["default"]
    for name in methods(data_set):
        merged = ConfigParser(copy.deepcopy(configs["train"]))
        for key, value in configs[name].items():
            merged.set(copy.deepcopy(value), key, True)
        for key in ("ramp", "lr_scheduler", "first_stage", "iterations", "labeled_batch_size", "own_labeled_loss"):
            said = any(id.partition("::")[0] == key for id in _said(name, data_set))
            assert said or merged[key] == neutral[key], f"{name} keeps {key} of {default}"


def _said(name, data_set):
    recipe, about = part(f"methods/{name}"), part(f"data_sets/{data_set}")
    sections = (recipe.get(key, {}) for key in ("ids", "2D", "3D", about["dimension"]))
    return {id for section in (*sections, about["methods"].get(name, {})) for id in section}


def test_a_handler_and_a_preset_of_all_trainings_stand_in_one_file(tmp_path):
    common = part("common")["train"]
    for data_set in data_sets():
        train = bundle_configs(data_set)["train"]
        assert train["train"]["handlers"] == common["train"]["handlers"]
        assert train["preset"] == common["preset"]


def test_what_does_not_fit_on_a_line_is_broken_where_it_is_read():
    config = {
        "train": {"inferer": {"_target_": "SimpleInferer"}},
        "long": {"_target_": "x" * 60, "a": "y" * 25, "b": 1, "c": {"_target_": "z" * 60}, "d": [1, 2], "e": 3},
        "section": {"one": {"_target_": "x" * 60}, "two": 2, "three": {"_target_": "x" * 60}},
    }
    text = format_config(config)
    assert json.loads(text) == config
    assert text.splitlines() == [
        "{",
        '    "train": {"inferer": {"_target_": "SimpleInferer"}},',
        '    "long": {',
        f'        "_target_": "{"x" * 60}", "a": "{"y" * 25}",',
        '        "b": 1,',
        f'        "c": {{"_target_": "{"z" * 60}"}},',
        '        "d": [1, 2], "e": 3',
        "    },",
        '    "section": {',
        f'        "one": {{"_target_": "{"x" * 60}"}},',
        '        "two": 2,',
        f'        "three": {{"_target_": "{"x" * 60}"}}',
        "    }",
        "}",
    ]


def test_changes_reach_into_objects_and_leave_what_is_not_there_to_overlays():
    config = {"network_def": {"_target_": "A", "features": [1]}, "list": [1]}
    lay_upon(config, {"network_def::features": [2], "+list": [2], "+other": [3], "other::id": 4})
    assert config == {"network_def": {"_target_": "A", "features": [2]}, "list": [1, 2], "+other": [3], "other::id": 4}
    lay_upon(config, {"network_def": {"_target_": "B"}})
    assert config["network_def"] == {"_target_": "B"}
