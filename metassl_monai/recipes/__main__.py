# SPDX-License-Identifier: Apache-2.0
"""Write the configs of all bundles: ``python -m metassl_monai.recipes [--check] [FOLDER]``, by default ``bundles``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from metassl_monai.files import atomic_write

from .compose import bundle_configs
from .layout import format_config
from .parts import FOLDER, data_sets, part


def files_of(bundles: Path) -> Iterator[tuple[Path, str]]:
    """Yield each JSON file of the recipes and bundles with what it should hold; those written by hand laid out anew."""
    for file in FOLDER.rglob("*.json"):
        yield file, format_config(json.loads(file.read_text(encoding="utf-8")))
    for data_set in data_sets():
        folder = bundles / part(f"data_sets/{data_set}")["bundle"]
        made = {folder / "configs" / f"{name}.json": config for name, config in bundle_configs(data_set).items()}
        by_hand = [file for place in ("configs", "experiments") for file in (folder / place).glob("*.json")]
        content = {file: json.loads(file.read_text(encoding="utf-8")) for file in by_hand if file not in made}
        for file, config in {**made, **content}.items():
            yield file, format_config(config)


def main() -> None:
    """Write the files that differ, or with ``--check`` name them and end with exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m metassl_monai.recipes", description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="?", default=Path("bundles"))
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    files = list(files_of(arguments.bundles))
    wrong = [(file, text) for file, text in files if not file.is_file() or file.read_text(encoding="utf-8") != text]
    if arguments.check:
        sys.exit("\n".join(f"{file} is not what the recipes give" for file, _ in wrong) or 0)
    for file, text in wrong:
        with atomic_write(file) as target:
            target.write(text)


if __name__ == "__main__":
    main()
