# SPDX-License-Identifier: Apache-2.0
"""The two ways to score a network on data sets whose published results are those of cropped test volumes."""

from __future__ import annotations

__all__ = ["is_published"]


def is_published(protocol: str, datalist: str | None) -> bool:
    """Tell whether only the box of each case's own annotation is segmented, as in published results.

    Training's validation, evaluation and inference ask this alike, so that they give a network the same scores.

    Args:
        protocol: ``"whole"``, the volume as the scanner left it, which is all there is of a new patient; or
            ``"published"``.
        datalist: the datalist that names the annotations; None where there is none.

    Raises:
        ValueError: for any other protocol, and for the published one without a datalist.

    Example:
        >>> from metassl_monai.data import is_published
        >>> is_published("whole", None), is_published("published", "datalist.json")
        (False, True)
    """
    if protocol not in ("whole", "published"):
        raise ValueError(f"--protocol {protocol}: choose whole or published.")
    if protocol == "published" and datalist is None:
        raise ValueError("--protocol published crops images to their annotations: name these by --datalist FILE.")
    return protocol == "published"
