# SPDX-License-Identifier: Apache-2.0
"""Every dataset can be sent to a worker that is spawned, as workers are on Windows and macOS."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from monai.data import DataLoader
from monai.utils import set_determinism

from metassl_monai.bundle.locate import bundle_names, bundle_path

DIGESTPATH, BRATS = "digestpath_pathology_segmentation", "brats2019_mri_segmentation"
DATASETS = ("train::dataset", "train::unlabeled_dataset", "validate::dataset", "hidden_labels::dataset")


def drawn(dataset):
    """The tensors of the first item, as drawn with one seed."""
    set_determinism(seed=0)
    item = dataset[0]
    return {key: torch.as_tensor(value) for key, value in item.items() if isinstance(value, torch.Tensor)}


def assert_same_after_pickling(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy) == len(dataset) > 0
    item, other = drawn(dataset), drawn(copy)
    assert set(item) == set(other) != set()
    for key, value in item.items():
        torch.testing.assert_close(other[key], value, equal_nan=True)


@pytest.mark.parametrize("bundle", bundle_names())
def test_the_datasets_of_a_training_are_picklable(workflow, bundle):
    parser = workflow(bundle, ["train", "hidden_labels"]).parser
    for key in DATASETS:
        assert_same_after_pickling(parser.get_parsed_content(key))


@pytest.mark.parametrize("bundle", bundle_names())
def test_the_dataset_of_an_inference_is_picklable(workflow, bundle):
    parser = workflow(bundle, ["inference"], "infer", split="validation", ckpt_path="none.pt").parser
    assert_same_after_pickling(parser.get_parsed_content("dataset"))


def lambdas(node, path=()):
    """The paths, within a config, of values that are a lambda."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from lambdas(value, (*path, str(key)))
    if isinstance(node, str) and "lambda" in node:
        yield path


@pytest.mark.parametrize("bundle", bundle_names())
def test_no_config_brings_a_lambda_into_a_dataset(bundle):
    for file in bundle_path(bundle).glob("configs/*.json"):
        for path in lambdas(json.loads(file.read_text())):
            # what follows the network runs in the main process
            assert not any(part in "/".join(path) for part in ("transform", "preprocessing", "dataset")) or (
                "postprocessing" in path
            ), f"{file.name}: {path}"


@pytest.mark.parametrize("bundle", [BRATS, DIGESTPATH])
def test_a_spawned_worker_reads(workflow, bundle):
    dataset = workflow(bundle, ["train"]).parser.get_parsed_content("validate::dataset")
    loader = DataLoader(dataset, batch_size=1, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(next(iter(loader))["image"][0], dataset[0]["image"])
