# SPDX-License-Identifier: Apache-2.0
"""What a semi-supervised method is: it says which prediction is judged by which reference, and nothing of losses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeAlias, TypedDict

import torch
from torch import Tensor, nn

from metassl_monai.ignore import IGNORE

from .pair import Pair, Step, at_unannotated, overlap, pair_streams, unannotated_pairs

__all__ = [
    "Batch",
    "Losses",
    "Method",
    "MethodArguments",
    "Pair",
    "Ramp",
    "Step",
    "all_images",
    "aside",
    "at_unannotated",
    "overlap",
    "pair_streams",
    "require_halves",
    "require_two",
]

Batch = Mapping[str, Mapping[str, Tensor]]
"""``{"labeled": {"image", "label"}, "unlabeled": {"image"}}``, each tensor batch-first.

Labels may hold :data:`~metassl_monai.ignore.IGNORE` where the method's ``partial_labels`` is True."""


Losses: TypeAlias = nn.Module | Mapping[str, nn.Module]
"""One loss for all pairs, or one by the name of the pair."""

Ramp: TypeAlias = Callable[[int], float]
"""A weight at a step, counted from 0."""


class MethodArguments(TypedDict, total=False):
    """What every method takes, see :class:`Method`: by name, or first and in this order."""

    network: nn.Module
    labeled_loss: Losses
    unlabeled_loss: Losses
    ramp: Ramp


class Method(nn.Module):
    """Base class: hands each pair to its loss. A method writes :meth:`pairs` and, if it has a teacher, :meth:`update`.

    Each pair name gets its own deep copy of the losses, made here, so that the threshold state of a name exists before
    a checkpoint is loaded and is a buffer like any other.

    A labeled loss that does not learn from the reference says so: ``reads_reference = False``. Methods then spare the
    passes that only make references of labeled images, see :meth:`labeled_reference`.

    An unlabeled loss that ``measures`` its weights sees each labeled pair of its name, in training mode and after the
    labeled loss, where that one looks at the reference, too.

    With ``partial_labels`` voxels may be left unannotated: they count in no labeled loss and are compared with their
    reference by the unlabeled loss, each as heavy as a voxel of an unlabeled image; thresholds follow the unlabeled
    images alone. Without it no label is looked at for that.

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
        partial_labels: whether labels may hold :data:`~metassl_monai.ignore.IGNORE`; the trainer sets it.
    """

    names: ClassVar[dict[str, tuple[str, ...]]]
    needs_unlabeled: ClassVar[bool] = True
    partial_labels: bool = False

    def __init__(self, network: nn.Module, labeled_loss: Losses, unlabeled_loss: Losses, ramp: Ramp) -> None:
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
        pairs, extras, prediction, unannotated = self.pairs(batch, step)
        ramp = self.ramp(step)
        losses = {}
        if self.partial_labels:
            # first, so that what a loss remembers of its last call is about the unlabeled images
            for pair in unannotated_pairs(pairs) if unannotated is None else unannotated:
                losses[f"unannotated/{pair.name}"] = ramp * pair.weight * self._unannotated_loss(pair)
        for pair in pairs:
            if pair.target is None:
                loss = self.unlabeled_losses[pair.name](pair.prediction, pair.reference, pair.label, pair.mask)
                losses[f"unlabeled/{pair.name}"] = ramp * pair.weight * loss
            else:
                losses[f"labeled/{pair.name}"] = pair.weight * self._labeled_loss(pair, pair.target, ramp)
        return {**losses, **extras}, prediction

    def _labeled_loss(self, pair: Pair, target: Tensor, ramp: float) -> Tensor:
        target, known = self.annotated(target)
        judged = pair.prediction, target, pair.reference, pair.label, overlap(pair.mask, known)
        labeled_loss = self.labeled_losses[pair.name]
        loss: Tensor = labeled_loss(*judged, ramp)
        if self.training and _sees_reference(labeled_loss) and pair.name in self.unlabeled_losses:
            unlabeled_loss: Any = self.unlabeled_losses[pair.name]
            if getattr(unlabeled_loss, "measures", False):
                unlabeled_loss.measure(*judged)
        return loss

    def annotated(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split an annotation into class indices everywhere, and where they are known; None where that is everywhere.

        Args:
            target: class indices, and :data:`~metassl_monai.ignore.IGNORE` with ``partial_labels``.

        Returns:
            Class indices and booleans, both of the shape of ``target``.
        """
        return (target.clamp_min(0), target != IGNORE) if self.partial_labels else (target, None)

    def _unannotated_loss(self, pair: Pair) -> Tensor:
        loss = self.unlabeled_losses[pair.name]
        training = loss.training
        loss.eval()  # thresholds are read: a step moves them once
        value: Tensor = loss(pair.prediction, pair.reference, pair.label, pair.mask)
        loss.train(training)
        return value

    @property
    def reads_labeled_references(self) -> bool:
        """Whether a labeled loss learns from the reference."""
        return any(map(_reads_reference, self.labeled_losses.values()))

    def labeled_reference(self, judge: Callable[[Tensor], Tensor], images: Tensor, own: Tensor) -> Tensor:
        """Return what judges labeled images, made aside: random numbers go on as if it had not been.

        Args:
            judge: maps images to logits, without gradient here.
            images: the labeled images, ``(B, channels, *spatial)``.
            own: what stands in where no labeled loss looks at the reference, ``(B, C, *spatial)``.
        """
        if not (self.partial_labels or any(map(_sees_reference, self.labeled_losses.values()))):
            return own.detach()
        return aside(judge, images)

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


def aside(judge: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Call ``judge`` without gradient; random numbers go on as if it had not been called."""
    with torch.random.fork_rng([images.device] if images.is_cuda else []), torch.no_grad():
        return judge(images)


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


def require_halves(network: nn.Module, why: str) -> None:
    """Raise ValueError where a network is not made of the two submodules ``encoder`` and ``decoder``.

    Args:
        network: the network.
        why: what a method does with them, for the message.
    """
    if not (hasattr(network, "encoder") and hasattr(network, "decoder")):
        raise ValueError(
            f"{type(network).__name__} has no `encoder` and `decoder`, {why}: "
            "use a network of metassl_monai.networks, or give yours these two submodules."
        )


def _reads_reference(loss: nn.Module) -> bool:
    return getattr(loss, "reads_reference", True)


def _sees_reference(loss: nn.Module) -> bool:
    return _reads_reference(loss) or getattr(loss, "watches_reference", False)


def _by_name(loss: Losses, name: str, stream: str) -> nn.Module:
    if not isinstance(loss, (Mapping, nn.ModuleDict)):
        return loss
    if name not in loss:
        raise ValueError(f"{stream}_loss names {sorted(loss)} but not {name!r}: give each pair of the method a loss.")
    return loss[name]
