# SPDX-License-Identifier: Apache-2.0
"""What a semi-supervised method is: it says which prediction is judged by which reference, and nothing of losses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Method", "Pair", "Step", "pair_streams"]

Batch = Mapping[str, Mapping[str, Tensor]]
"""``{"labeled": {"image", "label"}, "unlabeled": {"image"}}``, each tensor batch-first."""


class Pair(NamedTuple):
    """A prediction that receives gradient and the reference that judges it."""

    prediction: Tensor
    """Logits, ``(B, C, *spatial)``."""
    reference: Tensor
    """Logits of the same shape; the loss detaches it."""
    name: str
    """One of ``Method.names``, unique per stream within a step."""
    target: Tensor | None = None
    """Annotation, ``(B, 1, *spatial)``: its presence makes the pair a labeled one."""
    label: Tensor | None = None
    """Hard label of the reference where it is not ``argmax(reference)``, ``(B, 1, *spatial)``."""
    mask: Tensor | None = None
    """Non-zero where the pair counts, ``(B, 1, *spatial)``."""
    weight: float = 1.0
    """Factor on the loss, without the ramp."""


class Step(NamedTuple):
    """What a method makes of a batch."""

    pairs: Sequence[Pair]
    extras: Mapping[str, Tensor]
    """Further loss terms by name, complete with their weights."""
    prediction: Tensor
    """Logits of the labeled images, or of the mixtures that they are part of."""


class Method(nn.Module):
    """Base class: hands each pair to its loss. A method writes :meth:`pairs` and, if it has a teacher, :meth:`update`.

    Each pair name gets its own deep copy of the losses, made here, so that the threshold state of a name exists before
    a checkpoint is loaded and is a buffer like any other.

    A labeled loss that does not learn from the reference says so: ``reads_reference = False``. Methods then spare the
    passes that only make references of labeled images, see :meth:`labeled_reference`.

    Args:
        network: the network that is exported, and that ``network_def`` of a bundle builds.
        labeled_loss: called as ``loss(prediction, target, reference, label, mask, ramp)``; or one such loss by name.
        unlabeled_loss: called as ``loss(prediction, reference, label, mask)``; or one such loss by name.
        ramp: weight of the unlabeled terms at a step, such as :class:`GaussianRamp`.

    Raises:
        ValueError: when losses are given by name and one is missing.

    Attributes:
        names: the pair names of the labeled and of the unlabeled stream.
        needs_unlabeled: False where the method uses labeled images alone.
    """

    names: ClassVar[dict[str, tuple[str, ...]]]
    needs_unlabeled: ClassVar[bool] = True

    def __init__(
        self,
        network: nn.Module,
        labeled_loss: nn.Module | Mapping[str, nn.Module],
        unlabeled_loss: nn.Module | Mapping[str, nn.Module],
        ramp: Callable[[int], float],
    ) -> None:
        super().__init__()
        self.network = network
        self.ramp = ramp
        self.labeled_losses = nn.ModuleDict()
        self.unlabeled_losses = nn.ModuleDict()
        given = {"labeled": labeled_loss, "unlabeled": unlabeled_loss}
        copies = {"labeled": self.labeled_losses, "unlabeled": self.unlabeled_losses}
        for name in dict.fromkeys((*self.names["labeled"], *self.names["unlabeled"])):
            chosen = {key: _by_name(loss, name, key) for key, loss in given.items() if name in self.names[key]}
            # copied together: a threshold that both losses share stays shared within the name
            for key, loss in copy.deepcopy(chosen).items():
                copies[key][name] = loss

    def pairs(self, batch: Batch, step: int) -> Step:
        """Return the pairs of this batch. ``step`` counts optimizer iterations from 0."""
        raise NotImplementedError(f"{type(self).__name__} must write pairs(batch, step).")

    def forward(self, batch: Batch, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the loss terms of a batch.

        Args:
            batch: see :data:`Batch`.
            step: number of iterations done before this one.

        Returns:
            The terms by name, as they enter the total, and the logits of the labeled images.
        """
        pairs, extras, prediction = self.pairs(batch, step)
        ramp = self.ramp(step)
        losses = {}
        for pair in pairs:
            if pair.target is None:
                loss = self.unlabeled_losses[pair.name](pair.prediction, pair.reference, pair.label, pair.mask)
                losses[f"unlabeled/{pair.name}"] = ramp * pair.weight * loss
            else:
                loss = self.labeled_losses[pair.name](
                    pair.prediction, pair.target, pair.reference, pair.label, pair.mask, ramp
                )
                losses[f"labeled/{pair.name}"] = pair.weight * loss
        return {**losses, **extras}, prediction

    @property
    def reads_labeled_references(self) -> bool:
        """Whether a labeled loss learns from the reference."""
        return any(getattr(loss, "reads_reference", True) for loss in self.labeled_losses.values())

    def labeled_reference(self, judge: Callable[[Tensor], Tensor], images: Tensor, own: Tensor) -> Tensor:
        """Return what judges labeled images, made aside: random numbers go on as if it had not been.

        Args:
            judge: maps images to logits, without gradient here.
            images: the labeled images, ``(B, channels, *spatial)``.
            own: what stands in where no labeled loss looks at the reference, ``(B, C, *spatial)``.
        """
        watched = any(getattr(loss, "watches_reference", False) for loss in self.labeled_losses.values())
        if not (watched or self.reads_labeled_references):
            return own.detach()
        with torch.random.fork_rng([images.device] if images.is_cuda else []), torch.no_grad():
            return judge(images)

    def update(self, step: int) -> None:
        """Do what follows an optimizer step, such as moving a teacher. By default nothing."""

    @property
    def inference_network(self) -> nn.Module:
        """The network whose weights are exported and that ``inference.json`` loads."""
        return self.network

    def named_losses(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the loss of each pair name as ``("labeled/<name>", loss)`` or ``("unlabeled/<name>", loss)``."""
        for stream, losses in (("labeled", self.labeled_losses), ("unlabeled", self.unlabeled_losses)):
            for name, loss in losses.items():
                yield f"{stream}/{name}", loss


def pair_streams(
    prediction: Tensor, reference: Tensor, name: str, target: Tensor, labeled_weight: float = 1.0
) -> list[Pair]:
    """Split whole-batch logits, labeled samples first, into a labeled and an unlabeled pair."""
    labeled = len(target)
    return [
        Pair(prediction[:labeled], reference[:labeled], name, target, weight=labeled_weight),
        Pair(prediction[labeled:], reference[labeled:], name),
    ]


def all_images(batch: Batch, key: str = "image") -> Tensor:
    """Images of both streams, labeled first: one forward pass, and batch statistics that mix the two."""
    return torch.cat([batch["labeled"][key], batch["unlabeled"][key]])


def require_two(network: nn.Module, second_network: nn.Module) -> None:
    """Raise ValueError where a method of two networks is given one twice."""
    if second_network is network:
        raise ValueError(
            "network and second_network are the same object, so it would teach itself: "
            'build a second one (in a config: "second_network_def": "%network_def").'
        )


def _by_name(loss: nn.Module | Mapping[str, nn.Module], name: str, stream: str) -> nn.Module:
    if not isinstance(loss, (Mapping, nn.ModuleDict)):
        return loss
    if name not in loss:
        raise ValueError(f"{stream}_loss names {sorted(loss)} but not {name!r}: give each pair of the method a loss.")
    return loss[name]
