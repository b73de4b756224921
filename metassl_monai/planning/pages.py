# SPDX-License-Identifier: Apache-2.0
"""The page of a bundle that was planned: what was decided, why, and how to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .plan import Decision

__all__ = ["bundle_page"]

_PAGE = """\
# {name}

Segments {structures}. Made by `metassl prepare folder` from {labeled} labeled and {unlabeled} unlabeled cases;
{validation} labeled cases are held out for validation.

## What was decided

| decision | value | reason |
|---|---|---|
{rows}

`plan.json` holds the same with the fingerprint of the data. Change a decision with `metassl prepare folder ... --set
NAME=VALUE`, or any id in `configs/train.json`.

## Commands

```sh
metassl train {name}
metassl infer {name} --images SCANS --out predictions
metassl report {name}
```

Without this command, from the bundle's folder, here another method with MetaSSL's losses:

```sh
python -m monai.bundle run training --config_file "['configs/train.json','configs/cps.json','configs/metassl.json']"
python -m monai.bundle run inference --config_file configs/inference.json --dataset_dir SCANS
torchrun --standalone --nproc_per_node 2 -m monai.bundle run training \\
    --config_file "['configs/train.json','configs/multi_gpu_train.json']"
```
"""


def bundle_page(name: str, decisions: Sequence[Decision], datalist: Mapping[str, Any]) -> str:
    """Return the page in Markdown."""
    rows = [f"| {name} | `{json.dumps(value)}` | {reason} |" for name, value, reason in decisions]
    structures = ", ".join(list(datalist["labels"].values())[1:])
    counts = {key: len(datalist[key]) for key in ("labeled", "unlabeled", "validation")}
    return _PAGE.format(name=name, structures=structures, rows="\n".join(rows), **counts)
