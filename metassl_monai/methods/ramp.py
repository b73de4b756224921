# SPDX-License-Identifier: Apache-2.0
"""The weight of the unlabeled terms over a training run."""

from __future__ import annotations

import math

__all__ = ["GaussianRamp"]


class GaussianRamp:
    """``maximum * exp(-5 (1 - t / iterations)^2)``, constant afterwards (MetaSSL, Sec. IV-A; Laine and Aila, 2017).

    Args:
        iterations: length of the ramp in iterations. The papers ramp over the whole run; common benchmark code and
            MetaSSL's release over 30,000 iterations, however long the run.
        maximum: the weight that is reached at its end.
        start: the weight is 0 before this step and then that of the formula.

    Raises:
        ValueError: when ``iterations`` is not positive or ``start`` is negative.

    Example::

        >>> from metassl_monai.methods import GaussianRamp
        >>> ramp = GaussianRamp(iterations=30_000)
        >>> round(ramp(0), 6), ramp(30_000)
        (0.000674, 0.1)
        >>> GaussianRamp(iterations=30_000, start=1000)(999)
        0.0
    """

    def __init__(self, iterations: int, maximum: float = 0.1, start: int = 0) -> None:
        if iterations < 1:
            raise ValueError(f"iterations={iterations}: a ramp needs at least one iteration.")
        if start < 0:
            raise ValueError(f"start={start}: choose the first step whose weight is not 0, counted from 0.")
        self.iterations = iterations
        self.maximum = maximum
        self.start = start

    def __call__(self, step: int) -> float:
        """Return the weight at ``step``, counted from 0."""
        if step < self.start:
            return 0.0
        remaining = 1 - min(step / self.iterations, 1.0)
        return self.maximum * math.exp(-5 * remaining**2)
