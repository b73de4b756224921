# SPDX-License-Identifier: Apache-2.0
"""What ``metassl COMMAND --help`` says beside the options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from typer.core import TyperCommand

__all__ = ["EXAMPLES", "help_of_bundles"]

_WORDS = f"{__name__}.words"


def _examples(*lines: str) -> str:
    return "\n\n".join(["Examples:" if len(lines) > 1 else "Example:", *lines])


EXAMPLES = {
    "demo": _examples("metassl demo --out first_try"),
    "prepare": _examples(
        "metassl prepare folder --images scans --labels annotations --out heart",
        "metassl prepare acdc --source ACDC --labeled 3 --out acdc_3.json",
    ),
    "check": _examples("metassl check --datalist acdc_3.json --dataset-dir ACDC"),
    "train": _examples(
        "metassl train heart --minutes 60",
        "metassl train phantom_segmentation --method mean_teacher --iterations 500 --output_dir run",
        "metassl train phantom_segmentation --help  # lists methods, overlays and ids of this bundle",
    ),
    "infer": _examples("metassl infer heart --images new_scans --out predictions --uncertainty"),
    "suggest": _examples("metassl suggest heart --count 5 --out next.csv"),
    "evaluate": _examples(
        "metassl evaluate --datalist acdc_3.json --dataset-dir ACDC --predictions run/predictions --out run/evaluation"
    ),
    "compare": _examples("metassl compare run_a run_b --metric dice --metric hd95_mm"),
    "report": _examples("metassl report heart", "metassl report run_a run_b --out both.html"),
    "experiment": _examples(
        "metassl experiment bundles/acdc_cardiac_mri_segmentation/experiments/acdc_small.json --dataset-dir ACDC "
        "--out runs"
    ),
    "bundle": _examples("metassl bundle", "metassl bundle la_atrium_mri_segmentation --out ."),
    "export": _examples("metassl export heart --format onnx --out heart.onnx"),
    "audit": _examples("metassl audit downloaded_bundle.zip"),
}
"""The epilogs of the commands; one that a test parses cannot be out of date."""


def help_of_bundles(describe: Callable[[Sequence[str]], str]) -> type[TyperCommand]:
    """Return a kind of command whose ``--help`` goes on with what the words before it are about.

    Args:
        describe: gets all words of the command line but options, and returns the text.

    Returns:
        The class, for ``app.command(cls=...)``.
    """

    class HelpOfBundles(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            # --help is answered before any other argument has a value
            ctx.meta[_WORDS] = [word for word in args if not word.startswith("-")]
            return super().parse_args(ctx, args)

        def get_help(self, ctx: Any) -> str:
            return super().get_help(ctx) + describe(ctx.meta[_WORDS])

    return HelpOfBundles
