# SPDX-License-Identifier: Apache-2.0
"""What every bundle's files must be, whatever they train."""

from __future__ import annotations

import json
import re
from pathlib import Path

import monai.bundle
import pytest
from monai.bundle import ConfigParser
from monai.inferers.utils import _get_scan_interval

from metassl_monai.bundle.locate import bundle_names, bundle_path

ROOT = Path(__file__).parents[2]
BUNDLES = bundle_names()
SCHEMA = ROOT.parent / "shared" / "specs" / "meta_schema_20240725.json"
METHODS = (
    "supervised",
    "full_supervised",
    "mean_teacher",
    "fixmatch",
    "cct",
    "cps",
    "rdrop",
    "bcp",
    "cml",
    "dualnet",
    "alhvr",
)
DEFAULT = {
    "abdomenct1k_ct_segmentation": "cps",
    "acdc_cardiac_mri_segmentation": "cps",
    "brats2019_mri_segmentation": "cps",
    "digestpath_pathology_segmentation": "bcp",
    "la_atrium_mri_segmentation": "bcp",
    "pancreas_ct_segmentation": "cps",
    "phantom_segmentation": "cps",
}
FILES = ("train", "inference", "mean_of_two", "evaluate", "multi_gpu_train", "metadata", "tracking", "plain", *METHODS)


def read(bundle, name):
    return json.loads((bundle_path(bundle) / "configs" / f"{name}.json").read_text())


def strings(node):
    if isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


def test_the_bundles_come_with_the_package():
    assert list(DEFAULT) == BUNDLES


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_bundle_has_every_file(bundle):
    folder = bundle_path(bundle)
    for file in ("LICENSE", "docs/README.md", "configs/logging.conf", *(f"configs/{name}.json" for name in FILES)):
        assert (folder / file).is_file(), file


@pytest.mark.parametrize("bundle", BUNDLES)
def test_no_training_config_can_read_the_test_list(bundle):
    for name in ("train", "multi_gpu_train", "plain", *METHODS):
        assert not [text for text in strings(read(bundle, name)) if re.search(r"\btest\b|@split", text)], name


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_needs_only_our_networks_and_readers(bundle):
    """All but `initialize` and `checks`, which MONAI Label and Deploy do not run; a failing import harms no others."""
    config = read(bundle, "inference")
    checks = {"check_command_line", "check_inference", "check_network", "check_volumes", "check_writable"}
    imports = {statement: statement.split()[-1] for statement in config.pop("imports")}
    assert {name for statement, name in imports.items() if " metassl_monai.bundle " in statement} == checks
    assert set(imports.values()) - checks <= {"glob", "os", "torch", "Image", "metassl_monai"}
    del config["initialize"], config["checks"]
    text = json.dumps(config)
    assert set(re.findall(r"metassl_monai\.(\w+)", text)) == {"data", "networks"}
    assert not [name for name in checks if f"{name}(" in text]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_training_and_inference_build_the_same_network_on_the_same_images(bundle):
    train, inference = read(bundle, "train"), read(bundle, "inference")
    size = ("spatial_size",) if "spatial_size" in train else ("patch_size", "overlap", "window_weights")
    for key in ("labels", "num_classes", *size, "features", "network_def"):
        assert train[key] == inference[key], key
    assert train["validate"]["inferer"] == inference["inferer"]
    assert train["labels"] == read(bundle, "metadata")["network_data_format"]["outputs"]["pred"]["channel_def"]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_names_the_version_of_the_package(bundle):
    from metassl_monai import __version__

    metadata = read(bundle, "metadata")
    assert metadata["version"] in metadata["changelog"]
    assert metadata["required_packages_version"]["metassl-monai"] == __version__


@pytest.mark.skipif(not SCHEMA.is_file(), reason="the published schema is not here")
@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_follows_the_published_schema(bundle, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(SCHEMA.read_text())
    monai.bundle.verify_metadata(meta_file=str(bundle_path(bundle) / "configs" / "metadata.json"), filepath=str(schema))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_network_takes_and_gives_what_metadata_says(bundle):
    configs = bundle_path(bundle) / "configs"
    monai.bundle.verify_net_in_out(
        "network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_overlay_of_the_default_method_changes_nothing(bundle):
    train = read(bundle, "train")
    for key, value in read(bundle, DEFAULT[bundle]).items():
        assert key == "_desc_" or train[key] == value, key


def test_the_phantom_has_the_ids_of_acdc():
    """The phantom is the place to try out what the others do."""
    acdc, phantom = (read(bundle, "train") for bundle in ("acdc_cardiac_mri_segmentation", "phantom_segmentation"))
    assert set(phantom) - set(acdc) == {"phantom", "drawing"}
    assert set(acdc) <= set(phantom)
    for name in ("plain", *METHODS):
        acdc, phantom = (read(bundle, name) for bundle in ("acdc_cardiac_mri_segmentation", "phantom_segmentation"))
        for overlay in (acdc, phantom):
            overlay.get("pretrain", {}).pop("optimizer", None)  # the phantom's learns faster
            overlay.pop("labeled_batch_size", None)  # the phantom has few slices
            overlay.pop("unlabeled_batch_size", None)
        assert acdc == phantom, name


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_default_preset_is_the_papers(bundle):
    """No stored result shows another one to be better than that."""
    assert read(bundle, "train")["preset"] == "paper"
    for name in METHODS:
        assert "preset" not in read(bundle, name), name


LA, BRATS, PANCREAS = (f"{name}_segmentation" for name in ("la_atrium_mri", "brats2019_mri", "pancreas_ct"))


@pytest.mark.parametrize(
    ("bundle", "strides"),
    [
        (LA, [64, 64, 64]),
        (LA, [18, 18, 4]),
        (LA, [48, 48, 36]),
        (LA, [112, 112, 80]),
        (BRATS, [64, 64, 64]),
        (PANCREAS, [16, 16, 16]),
    ],
)
def test_windows_come_at_the_strides_of_the_config(bundle, strides):
    """The naive overlap, 1 - stride / side, gives windows of 96 at stride 16 a stride of 15."""
    parser = ConfigParser({**read(bundle, "inference"), **read(bundle, "paper_strides")})
    parser["strides"] = strides
    patch, overlap = parser.get_parsed_content("patch_size"), parser.get_parsed_content("overlap")
    assert _get_scan_interval((500, 500, 500), patch, 3, overlap) == tuple(strides)


def test_best_is_what_the_row_of_the_results_was_trained_with():
    bundle = bundle_path("acdc_cardiac_mri_segmentation")
    experiment = json.loads((bundle / "experiments" / "acdc_small.json").read_text())
    (row,) = [row for row in experiment["rows"] if row.get("name") == "bcp-paper-poly"]
    ran = {**experiment["overrides"], **experiment["methods"]["bcp"]["overrides"], **row["overrides"]}
    best = read(bundle.name, "best")
    assert {key: ran[key] for key in best if key != "_desc_"} == {k: v for k, v in best.items() if k != "_desc_"}
    assert row["preset"] == read(bundle.name, "train")["preset"]
