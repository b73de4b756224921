# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from monai.bundle import ConfigWorkflow

from metassl_monai.apps.bundles import bundle_path, config_files
from metassl_monai.data import prepare_la, write_datalist

LA = "la_atrium_mri_segmentation"
TINY = {
    "features": [4, 8, 16, 32, 64],
    "labeled_batch_size": 2,
    "unlabeled_batch_size": 2,
    "iterations": 2,
    "iterations_per_epoch": 1,
    "num_workers": 0,
    "device": "$torch.device('cpu')",
    "amp": False,
}
SIZE = {LA: {"patch_size": [32, 32, 32], "strides": [32, 32, 32]}}


@pytest.fixture(scope="session")
def la(tmp_path_factory, write_la):
    """A tiny release of LA with its datalist; read only."""
    folder = tmp_path_factory.mktemp("la") / "data"
    cases = ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "1D7CUD1955YZPGK8XHJX", "1GU15S0GJ6PFNARO469W"]
    write_la(folder, [*cases, "1MHBF3G6DCPWHSKG7XCP"], shape=(36, 34, 32))
    write_datalist(prepare_la(folder, labeled=1, validation=2), folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture
def datalist_of(phantom, la):
    """The datalist of tiny data that fit a bundle; its folder is that of the data."""
    return lambda bundle: la if bundle == LA else phantom


@pytest.fixture
def workflow(datalist_of, tmp_path):
    """Build a workflow of a bundle on tiny data."""

    def build(bundle, names, workflow_type="train", **overrides):
        files = [str(file) for file in config_files(bundle_path(bundle), names)]
        datalist = datalist_of(bundle)
        paths = {"dataset_dir": str(datalist.parent), "datalist": str(datalist), "output_dir": str(tmp_path / "out")}
        return ConfigWorkflow(
            config_file=files,
            workflow_type=workflow_type,
            logging_file=False,
            **{**TINY, **SIZE.get(bundle, {"spatial_size": [32, 32]}), **paths, **overrides},
        )

    return build
