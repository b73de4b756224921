# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# One thread a test process: the suite runs in parallel, and tiny tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """A tiny drawn data set; read only."""
    from metassl_monai.data import make_phantom

    folder = tmp_path_factory.mktemp("phantom") / "data"
    return make_phantom(folder, cases=7, labeled=1, validation=2, test=1, size=(32, 32, 3), seed=3)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real cases; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("METASSL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data: point METASSL_DATA at a folder that holds acdc/")
    return folder
