# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from .writing import a_label, an_image, write_scan


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """``scans`` with images a to f, and ``labels`` of the first four."""
    for number, name in enumerate("abcdef"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", an_image(number))
    for name in "abcd":
        write_scan(tmp_path / "labels" / f"{name}.nii.gz", a_label())
    return tmp_path
