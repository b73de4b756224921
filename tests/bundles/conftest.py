# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from monai.bundle import ConfigWorkflow

from metassl_monai.apps.bundles import bundle_path, config_files

TINY = {
    "spatial_size": [32, 32],
    "features": [4, 8, 16, 32, 64],
    "labeled_batch_size": 2,
    "unlabeled_batch_size": 2,
    "iterations": 2,
    "iterations_per_epoch": 1,
    "num_workers": 0,
    "device": "cpu",
    "amp": False,
}


@pytest.fixture
def workflow(phantom, tmp_path):
    """Build a workflow of a bundle on the tiny phantom."""

    def build(bundle, names, workflow_type="train", **overrides):
        files = [str(file) for file in config_files(bundle_path(bundle), names)]
        paths = {"dataset_dir": str(phantom.parent), "datalist": str(phantom), "output_dir": str(tmp_path / "out")}
        return ConfigWorkflow(
            config_file=files,
            workflow_type=workflow_type,
            logging_file=False,
            **{**TINY, "device": "$torch.device('cpu')", **paths, **overrides},
        )

    return build
