# SPDX-License-Identifier: Apache-2.0
"""Forward and backward of a training step as one CUDA graph."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch import Tensor

from metassl_monai.methods import Batch, Method

__all__ = ["GraphedStep"]

_WARM_UP = 3


class GraphedStep:
    """Record what the device does in one step, and have it do that again for each batch.

    A small network is done with a kernel before the processor has asked for the next one; a graph asks for all of
    them at once. The first steps run as they are written, then one is recorded. Batches must keep their shapes.

    What the processor decides in a step would be the same for ever, so that a method is refused whose pairs depend
    on the number of the step, on random numbers of the processor, or on values read from the device. The ramp is handed
    over in each step.

    Args:
        method: the method, whose ``ramp`` is replaced while its step is recorded.
        compute: forgets the gradients, does the forward and backward pass of a batch and a step, and returns the loss
            terms by name, the prediction and the loss.

    Raises:
        ValueError: by a call, if the step cannot be recorded or the shapes of the batches change.
    """

    def __init__(
        self, method: Method, compute: Callable[[Batch, Any], tuple[dict[str, Tensor], Tensor, Tensor]]
    ) -> None:
        held = [name for name, value in vars(method).items() if isinstance(value, Randomizable)]
        if held:
            raise self._refusal(method, f"its {held[0]} draws random numbers on the processor")
        self.method, self.compute = method, compute
        self.stream = torch.cuda.Stream()
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0

    def __call__(self, batch: Batch, step: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return what ``compute`` returns; from the fourth call on in memory that the next call overwrites."""
        self.calls += 1
        if self.calls <= _WARM_UP:
            outputs: tuple[dict[str, Tensor], Tensor, Tensor] = self._beside(lambda: self.compute(batch, step))
            return outputs
        if self.graph is None:
            self._record(batch)
        for static, new in zip(self._tensors(self.batch), self._tensors(batch), strict=True):
            if static.shape != new.shape:
                raise ValueError(
                    f"a batch of shape {tuple(new.shape)} came after batches of {tuple(static.shape)}: "
                    "a CUDA graph needs one shape. Set cuda_graph to False."
                )
            static.copy_(new, non_blocking=True)
        self.ramp.fill_(self.plain_ramp(step))
        self.graph.replay()  # type: ignore[union-attr]
        for module, name, value in self.remembered:
            setattr(module, name, value)
        return self.result

    def _record(self, batch: Batch) -> None:
        self.batch = {name: {key: value.clone() for key, value in stream.items()} for name, stream in batch.items()}
        self.plain_ramp, self.ramp = self.method.ramp, torch.zeros((), device=self.stream.device)
        buffers = {name: buffer.data_ptr() for name, buffer in self.method.named_buffers()}
        before = _processor_randomness()
        graph = torch.cuda.CUDAGraph()
        self.method.ramp = lambda step: self.ramp  # type: ignore[assignment,return-value]
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                # an object in place of the number, so that whatever reckons with it fails
                self.result = self.compute(self.batch, object())
        except TypeError:
            raise self._refusal(self.method, "it reckons with the number of the step") from None
        except RuntimeError as error:
            raise self._refusal(self.method, str(error).strip().split("\n")[0]) from None
        finally:
            self.method.ramp = self.plain_ramp
        if _processor_randomness() != before:
            raise self._refusal(self.method, "it draws random numbers on the processor")
        moved = [name for name, buffer in self.method.named_buffers() if buffers.get(name) != buffer.data_ptr()]
        if moved:
            raise self._refusal(self.method, f"it replaces its buffer {moved[0]}")
        self.graph = graph
        self.remembered = [
            (module, name, value)
            for module in self.method.modules()
            for name, value in vars(module).items()
            if isinstance(value, Tensor)
        ]

    def _beside(self, work: Callable[[], Any]) -> Any:
        """On the stream that the graph is recorded on, which autograd remembers."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = work()
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    @staticmethod
    def _tensors(batch: Mapping[str, Mapping[str, Tensor]]) -> list[Tensor]:
        return [value for stream in batch.values() for value in stream.values()]

    @staticmethod
    def _refusal(method: Method, reason: str) -> ValueError:
        return ValueError(
            f"a step of {type(method).__name__} cannot be recorded as a CUDA graph: {reason}. Set cuda_graph to False."
        )


def _processor_randomness() -> tuple[Any, ...]:
    _, numbers, position, *_ = np.random.get_state()
    return random.getstate(), np.asarray(numbers).tobytes(), position, torch.random.get_rng_state().numpy().tobytes()
