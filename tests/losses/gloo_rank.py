# SPDX-License-Identifier: Apache-2.0
"""One rank of the gloo test in test_thresholds.py: read a shard, update what it names, write it. Run as a script."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from metassl_monai import losses


def main(rank: int, world_size: int, rendezvous: str, shard: str, output: str) -> None:
    """Update each threshold that the shard names, and accuracies, twice on this rank's part."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    data = torch.load(shard, weights_only=True)
    states = {}
    for name, (kind, options) in data["thresholds"].items():
        threshold = getattr(losses, kind)(**options)
        for _ in range(2):
            threshold.update(data["confidence"], data["label"], data["mask"], data["reference"])
        states[name] = threshold.state_dict()
    accuracies = losses.RegionAccuracyWeights(4, keep=0.6)
    for _ in range(2):
        accuracies.update(data["regions"], data["label"], data["right"], data["mask"])
    states["accuracies"] = accuracies.state_dict()
    torch.save(states, output)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
