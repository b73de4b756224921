# SPDX-License-Identifier: Apache-2.0
"""The trainer: any method, one optimizer, MONAI's events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.inferers import Inferer, SimpleInferer
from monai.utils import CommonKeys as Keys
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from metassl_monai.finite import refuse_not_finite
from metassl_monai.methods import Method

from .finite_losses import FiniteLosses
from .graphed_step import GraphedStep

__all__ = ["SemiSupervisedTrainer", "prepare_streams"]


def prepare_streams(
    batchdata: Mapping[str, Mapping[str, Any]], device: torch.device, non_blocking: bool = False, **kwargs: Any
) -> dict[str, dict[str, Any]]:
    """Move both streams to the device as plain tensors; metadata stays behind."""

    def move(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        plain = value.as_tensor() if isinstance(value, MetaTensor) else value
        return plain.to(device, non_blocking=non_blocking, **kwargs)

    return {stream: {key: move(value) for key, value in data.items()} for stream, data in batchdata.items()}


class SemiSupervisedTrainer(SupervisedTrainer):
    """MONAI's supervised trainer, fed with two streams and run by a :class:`~metassl_monai.methods.Method`.

    ``engine.state.output`` holds image, label and prediction of the *labeled* samples and the total loss, so that
    MONAI's metrics and handlers see what they know; ``engine.state.losses`` holds the terms by name.

    Mixed precision: float16 with loss scaling on CUDA, bfloat16 elsewhere, or ``amp_kwargs={"dtype": ...}``. The
    scaler is made once and can be checkpointed.

    A loss term, weight or running statistic that is not finite ends the training before anything of that epoch is
    validated or saved. On a CPU losses are looked at in each iteration, elsewhere when the epoch ends, so that no
    step waits for the device. A loss scaler skips single overflows, which are therefore let pass.

    Args:
        device: where to run.
        max_epochs: number of epochs.
        train_data_loader: yields ``{"labeled": {...}, "unlabeled": {...}}``, such as :class:`PairedDataLoader`, whose
            ``partial_labels`` is handed on to the method.
        method: the method, or a ``DistributedDataParallel`` around it.
        optimizer: optimizer of the method's parameters.
        prepare_batch: moves a batch to the device, see :func:`prepare_streams`.
        inferer: None or ``SimpleInferer``; methods run their networks on whole training patches.
        compile: compile the networks and the losses of the method, in place.
        compile_kwargs: arguments of ``torch.compile``.
        cuda_graph: do forward and backward as one CUDA graph, see :class:`GraphedStep`. The events
            ``FORWARD_COMPLETED`` and ``LOSS_COMPLETED`` then come after the backward pass. For one process, without
            accumulation.
        kwargs: all other arguments of ``monai.engines.SupervisedTrainer``.

    Raises:
        ValueError: when an inferer other than ``SimpleInferer`` is given, or a CUDA graph is asked for where there can
            be none; by ``run``, when the method's step cannot be recorded.
        NotFiniteError: by ``run``, with the iteration and the loss term or weight.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable[Any],
        method: nn.Module,
        optimizer: Optimizer,
        prepare_batch: Callable[..., Any] = prepare_streams,
        inferer: Inferer | None = None,
        compile: bool = False,
        compile_kwargs: dict[str, Any] | None = None,
        cuda_graph: bool = False,
        **kwargs: Any,
    ) -> None:
        _require_simple(inferer)
        self.method = method
        self.unwrapped_method.partial_labels |= getattr(train_data_loader, "partial_labels", False)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=self.unwrapped_method.network,
            optimizer=optimizer,
            loss_function=method,
            prepare_batch=prepare_batch,
            inferer=inferer,
            **kwargs,
        )
        dtype = torch.float16 if self.state.device.type == "cuda" else torch.bfloat16
        self.amp_kwargs = {"dtype": dtype, **self.amp_kwargs}
        scaled = self.amp and self.amp_kwargs["dtype"] == torch.float16
        self.scaler = torch.amp.GradScaler(self.state.device.type, enabled=scaled)  # type: ignore[assignment]
        self.finite_losses = FiniteLosses(tolerant=scaled)
        self.waits_anyway = self.state.device.type == "cpu" and not scaled
        # what ends a training is raised to the caller, who would read it three times with ignite's two lines
        self.logger.addFilter(_is_not_about_the_end)
        if compile:
            compile_method(self.unwrapped_method, **(compile_kwargs or {}))
        self.graphed_step = self._graphed_step() if cuda_graph else None

    @property
    def unwrapped_method(self) -> Method:
        """The method without ``DistributedDataParallel`` around it."""
        return self.method.module if isinstance(self.method, DistributedDataParallel) else self.method  # type: ignore[return-value]

    def run(self) -> None:  # type: ignore[override]
        """Train. MONAI's trainer would make a new scaler here and forget the old one's state."""
        Workflow.run(self)

    def _graphed_step(self) -> GraphedStep:
        if self.state.device.type != "cuda":
            raise ValueError(f"cuda_graph needs a CUDA device, and device is {self.state.device}: set it to False.")
        if self.method is not self.unwrapped_method or self.accumulation_steps > 1:
            raise ValueError("cuda_graph is for one process and accumulation_steps=1: set it to False.")
        return GraphedStep(self.unwrapped_method, self._losses_and_gradients)

    def _losses_and_gradients(self, batch: Any, step: Any) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """What :meth:`_compute` does, without events in between."""
        self.optimizer.zero_grad()
        with torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs):
            losses, prediction = self.method(batch, step)
            loss = torch.stack(list(losses.values())).sum()
        self.scaler.scale(loss).backward()  # type: ignore[union-attr]
        return {name: value.detach() for name, value in losses.items()}, prediction.detach(), loss.detach()

    def _iteration(self, engine: Any, batchdata: Any) -> dict[str, Any]:
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        labeled = batch["labeled"]
        self.state.batch = batchdata["labeled"]
        self.state.output = {Keys.IMAGE: labeled[Keys.IMAGE], Keys.LABEL: labeled[Keys.LABEL]}
        self.method.train()
        if self.graphed_step is None:
            self._compute(batch)
        else:
            self._replay(self.graphed_step, batch)
        if self._accumulation_bounds()[1]:
            self.scaler.step(self.optimizer)  # type: ignore[union-attr]
            self.scaler.update()  # type: ignore[union-attr]
            self.unwrapped_method.update(self.state.iteration - 1)
        if self.state.iteration % self.state.epoch_length == 0:
            self._check_epoch()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict[str, Any] = self.state.output
        return output

    def _compute(self, batch: Any) -> None:
        """Forward and backward."""
        if self._accumulation_bounds()[0]:
            self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        with torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs):
            losses, self.state.output[Keys.PRED] = self.method(batch, self.state.iteration - 1)
            self.fire_event(IterationEvents.FORWARD_COMPLETED)
            loss = torch.stack(list(losses.values())).sum()
        self._see({name: value.detach() for name, value in losses.items()}, loss)
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self.scaler.scale(loss / self.accumulation_steps).backward()  # type: ignore[union-attr]
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)

    def _replay(self, graphed_step: GraphedStep, batch: Any) -> None:
        losses, self.state.output[Keys.PRED], loss = graphed_step(batch, self.state.iteration - 1)
        self._see(losses, loss)
        for event in (
            IterationEvents.FORWARD_COMPLETED,
            IterationEvents.LOSS_COMPLETED,
            IterationEvents.BACKWARD_COMPLETED,
        ):
            self.fire_event(event)

    def _see(self, losses: dict[str, Tensor], loss: Tensor) -> None:
        self.state.losses, self.state.output[Keys.LOSS] = losses, loss
        self.finite_losses.see(losses, self.state.iteration)
        if self.waits_anyway:
            self.finite_losses.check()

    def _check_epoch(self) -> None:
        self._share_statistics()
        self.finite_losses.check()
        refuse_not_finite(self.unwrapped_method.state_dict(), f"iteration {self.state.iteration}")

    def _share_statistics(self) -> None:
        """Give all ranks the first one's batch statistics, so that they validate the network that it saves."""
        if isinstance(self.method, DistributedDataParallel):
            for buffer in self.unwrapped_method.buffers():
                dist.broadcast(buffer, src=0)

    def _accumulation_bounds(self) -> tuple[bool, bool]:
        """Whether this iteration is the first and whether it is the last of an accumulated step."""
        position = (self.state.iteration - 1) % self.state.epoch_length
        steps = self.accumulation_steps
        last = (position + 1) % steps == 0 or position + 1 == self.state.epoch_length
        return position % steps == 0, last


def _is_not_about_the_end(record: logging.LogRecord) -> bool:
    return "is terminating due to exception" not in record.getMessage()


def compile_method(method: Method, **kwargs: Any) -> None:
    """Compile each network and each loss of a method in place, which leaves the names in its state dict alone."""
    for module in method.modules():
        if isinstance(module, nn.Upsample):
            # inductor writes its gradient with atomics, several times as slow as PyTorch's own kernel
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]
    for child in method.children():
        for module in child.values() if isinstance(child, nn.ModuleDict) else [child]:
            # some methods work between encoder and decoder and never call the network as a whole
            halves = [getattr(module, name) for name in ("encoder", "decoder") if hasattr(module, name)]
            for part in (module, *halves):
                part.compile(**kwargs)


def _require_simple(inferer: Inferer | None) -> None:
    if inferer is not None and not isinstance(inferer, SimpleInferer):
        raise ValueError(
            f"inferer={type(inferer).__name__} cannot be used in semi-supervised training: a method runs its "
            "networks on whole patches. Use SimpleInferer here and the other one for validation and inference."
        )
