# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
from matplotlib.figure import Figure
from monai.bundle import ConfigWorkflow
from PIL import Image

from metassl_monai.bundle import user_mistake
from metassl_monai.bundle.locate import bundle_path, config_files
from metassl_monai.data import (
    prepare_abdomenct1k,
    prepare_brats2019,
    prepare_digestpath,
    prepare_la,
    prepare_pancreas_ct,
    write_datalist,
)
from metassl_monai.data.split import published_split

LA = "la_atrium_mri_segmentation"
ABDOMEN = "abdomenct1k_ct_segmentation"
BRATS = "brats2019_mri_segmentation"
PANCREAS = "pancreas_ct_segmentation"
DIGESTPATH = "digestpath_pathology_segmentation"
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
CUBES = {"patch_size": [32, 32, 32]}
SIZE = {LA: CUBES, BRATS: CUBES, PANCREAS: CUBES}
DATA = {LA: "la", ABDOMEN: "abdomenct1k", BRATS: "brats2019", PANCREAS: "pancreas_ct", DIGESTPATH: "digestpath"}


@pytest.fixture(autouse=True)
def unrendered(monkeypatch):
    """Build figures but do not render them, which takes longer than so small a training; other tests look at them."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: Image.new("RGB", (8, 8)).save(file, "PNG"))


@pytest.fixture(scope="session")
def la(tmp_path_factory, write_la):
    """A tiny release of LA with its datalist; read only."""
    folder = tmp_path_factory.mktemp("la") / "data"
    cases = ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "1D7CUD1955YZPGK8XHJX", "1GU15S0GJ6PFNARO469W"]
    write_la(folder, [*cases, "1MHBF3G6DCPWHSKG7XCP"], shape=(36, 34, 32))
    write_datalist(prepare_la(folder, labeled=1, validation=2), folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture(scope="session")
def abdomenct1k(tmp_path_factory, write_abdomenct1k):
    """A tiny release of AbdomenCT-1K with its datalist; read only."""
    folder = write_abdomenct1k(tmp_path_factory.mktemp("abdomen") / "data", range(1, 7))
    datalist = prepare_abdomenct1k(folder, labeled=1, seed=0, train=3, validation=2, test=1)
    write_datalist(datalist, folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture(scope="session")
def brats2019(tmp_path_factory, write_brats2019):
    """A tiny release of BraTS 2019 with its datalist; read only."""
    split = published_split("brats2019")
    cases = [*split["train"][:3], *split["validation"][:2], split["test"][0]]
    folder = write_brats2019(tmp_path_factory.mktemp("brats") / "data", cases)
    write_datalist(prepare_brats2019(folder, labeled=1), folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture(scope="session")
def pancreas_ct(tmp_path_factory, write_pancreas_ct):
    """A tiny release of Pancreas-CT whose labels are stored along other axes, with its datalist; read only."""
    folder = write_pancreas_ct(tmp_path_factory.mktemp("pancreas") / "data", [1, 2, 3, 4, 63], (30, 28, 20), "RAS")
    write_datalist(prepare_pancreas_ct(folder, labeled=1, validation=2), folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture(scope="session")
def digestpath(tmp_path_factory, write_digestpath):
    """A tiny release of DigestPath with its datalist; read only."""
    folder = write_digestpath(tmp_path_factory.mktemp("digestpath") / "data")
    write_datalist(prepare_digestpath(folder, labeled=1, seed=0, validation=2, test=1), folder / "datalist.json")
    return folder / "datalist.json"


@pytest.fixture
def datalist_of(request):
    """The datalist of tiny data that fit a bundle; its folder is that of the data."""
    return lambda bundle: request.getfixturevalue(DATA.get(bundle, "phantom"))


@pytest.fixture
def own_copy(datalist_of, tmp_path):
    """Copy the tiny data of a bundle, whose files a test may exchange, and return the datalist of the copy."""

    def copy(bundle):
        return Path(shutil.copytree(datalist_of(bundle).parent, tmp_path / "data")) / "datalist.json"

    return copy


def erased(label, values):
    return np.where(np.isin(label, values) if values else label >= 0, 0, label).astype(label.dtype)


@pytest.fixture
def erase():
    """Set all of a label file, or some of its values, to the background."""

    def change(file, *values):
        if file.suffix == ".jpg":
            Image.fromarray(erased(np.asarray(Image.open(file)), values)).save(file)
        elif file.suffix == ".nrrd":
            image = itk.imread(str(file))
            itk.array_view_from_image(image)[:] = erased(itk.array_view_from_image(image), values)
            itk.imwrite(image, str(file))
        else:
            image = nibabel.load(file)
            label = erased(np.asarray(image.dataobj), values)
            nibabel.save(nibabel.Nifti1Image(label, image.affine), file)

    return change


@pytest.fixture
def refusal():
    """Run a workflow and give the message that it is refused with; None where it runs to its end."""

    def run(workflow, run_id="run"):
        workflow.run_id = run_id
        workflow.initialize()
        try:
            workflow.run()
        except RuntimeError as error:
            mistake = user_mistake(error)
            if mistake is None:
                raise
            return str(mistake)
        return None

    return run


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
