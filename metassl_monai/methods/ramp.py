# SPDX-License-Identifier: Apache-2.0
"""The weight of the unlabeled terms over a training run."""

from __future__ import annotations

import math

__all__ = ["GaussianRamp"]


class GaussianRamp:
    """``maximum * exp(-5 (1 - t / iterations)^2)``, constant afterwards (MetaSSL, Sec. IV-A; Laine and Aila, 2017).

    Args:
        iterations: length of the ramp in iterations; the papers ramp over the whole run.
        maximum: the weight that is reached at its end.

    Raises:
        ValueError: when ``iterations`` is not positive.

    Example::

        >>> from metassl_monai.methods import GaussianRamp
        >>> ramp = GaussianRamp(iterations=30_000)
        >>> round(ramp(0), 6), ramp(30_000)
        (0.000674, 0.1)
    """

    def __init__(self, iterations: int, maximum: float = 0.1) -> None:
        if iterations < 1:
            raise ValueError(f"iterations={iterations}: a ramp needs at least one iteration.")
        self.iterations = iterations
        self.maximum = maximum

    def __call__(self, step: int) -> float:
        """Return the weight at ``step``, counted from 0."""
        remaining = 1 - min(step / self.iterations, 1.0)
        return self.maximum * math.exp(-5 * remaining**2)
