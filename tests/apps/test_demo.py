# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from metassl_monai.apps.demo import run_demo
from metassl_monai.bundle import UserError


def test_the_demo_never_touches_a_folder_that_exists(tmp_path):
    with pytest.raises(UserError, match="exists already"):
        run_demo(tmp_path)


@pytest.mark.slow
def test_the_demo_finds_every_structure(tmp_path, capfd):
    out = tmp_path / "demo"
    run_demo(out)
    summary = json.loads((out / "bcp_metassl" / "evaluation_validation" / "metrics.json").read_text())["summary"]
    dice = {row["structure"]: row["mean"] for row in summary if row["metric"] == "dice"}
    assert min(dice.values()) > 0.3
    assert dice["mean"] > 0.6
    printed = capfd.readouterr().out
    assert len(printed.splitlines()) <= 12
    for text in (
        "BCP + MetaSSL",
        "supervised",
        "mean dice: ",
        "mlflow ui --backend-store-uri",
        str(out / "report.html"),
    ):
        assert text in printed
    assert (out / "report.html").is_file()
    assert Path(re.search("picture +(.+)", printed).group(1)).is_file()
    assert (out / "supervised" / "predictions").is_dir()
