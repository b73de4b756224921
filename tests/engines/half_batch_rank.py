# SPDX-License-Identifier: Apache-2.0
"""One process of test_two_processes.py: train on its share of every batch at learning rate 0. Run as a script."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from metassl_monai.engines import SemiSupervisedTrainer, leave_process_group
from metassl_monai.losses import CrossEntropyDiceLoss, PseudoLabelLoss, metassl_losses
from metassl_monai.methods import CrossPseudoSupervision

CLASSES, BATCHES = 3, 4


def make_network(batch_norm: bool) -> nn.Module:
    """A network whose predictions are sure here and unsure there."""
    norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, CLASSES, 3, padding=1))


def make_batches(rank: int, world_size: int) -> list[dict[str, Any]]:
    """The share of a process in batches of 4 and 4 that are the same for any number of processes."""
    random = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(BATCHES):
        images = torch.randn(2, 4, 1, 16, 16, generator=random)
        label = (images[0] > 0).float() + (images[0] > 1)
        labeled = {"image": images[0][rank::world_size], "label": label[rank::world_size]}
        batches.append({"labeled": labeled, "unlabeled": {"image": images[1][rank::world_size]}})
    return batches


def main(rank: int, world_size: int, rendezvous: str, preset: str, batch_norm: str, output: str) -> None:
    """Train and write the method's state, the loss terms of each iteration and the gradients of the last one."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    torch.manual_seed(0)
    networks = [make_network(batch_norm == "True") for _ in range(2)]
    pair = (CrossEntropyDiceLoss(), PseudoLabelLoss()) if preset == "plain" else metassl_losses(CLASSES, preset)
    method = CrossPseudoSupervision(networks[0], *pair, lambda step: 1.0, networks[1])
    optimizer = torch.optim.SGD(method.parameters(), 0.0)
    loader = make_batches(rank, world_size)
    trainer = SemiSupervisedTrainer("cpu", 1, loader, DistributedDataParallel(method), optimizer, decollate=False)
    terms: list[dict[str, float]] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: terms.append({name: float(term) for name, term in engine.state.losses.items()}),
    )
    trainer.run()
    gradients = {name: parameter.grad for name, parameter in method.named_parameters()}
    torch.save({"state": method.state_dict(), "terms": terms, "gradients": gradients}, output)
    dist.barrier()  # a process that leaves while the other still sends ends it
    leave_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
