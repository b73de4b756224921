# SPDX-License-Identifier: Apache-2.0
"""Cost of the losses of one CPS step, forward and backward, as ratios measured in one run (no timed test)."""

from __future__ import annotations

import statistics
import sys
import time

import torch
import torch.nn.functional as F

from metassl_monai.losses import MetaSSLUnlabeledLoss, PseudoLabelLoss

BATCH, CLASSES, SIDE, REPEATS = 12, 4, 256, 15


def cross_entropy_with_argmax(a, b):
    return F.cross_entropy(a, b.detach().argmax(1))


def median_seconds(loss, a, b):
    seconds = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        (loss(a, b) + loss(b, a)).backward()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def main():
    torch.manual_seed(0)
    a, b = (torch.randn(BATCH, CLASSES, SIDE, SIDE, requires_grad=True) for _ in range(2))
    losses = {
        "cross-entropy, pseudo-labels by argmax": cross_entropy_with_argmax,
        "PseudoLabelLoss (max)": PseudoLabelLoss(),
        "MetaSSLUnlabeledLoss": MetaSSLUnlabeledLoss(CLASSES),
    }
    medians = {name: median_seconds(loss, a, b) for name, loss in losses.items()}
    base = medians["PseudoLabelLoss (max)"]
    for name, seconds in medians.items():
        sys.stdout.write(f"{name:42} {1e3 * seconds:8.1f} ms  {seconds / base:5.2f} x\n")


if __name__ == "__main__":
    main()
