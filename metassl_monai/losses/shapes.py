# SPDX-License-Identifier: Apache-2.0
"""What all losses demand of their arguments: shapes and types, since looking at values would wait for the device."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_shapes"]


def check_shapes(
    logits: Tensor, num_classes: int | None = None, reference: Tensor | None = None, **maps: Tensor | None
) -> None:
    """Raise ValueError unless all arguments fit ``logits``, and logits are floats.

    Args:
        logits: ``(B, C, *spatial)``.
        num_classes: what ``C`` must be; any where None.
        reference: must have the shape of ``logits``.
        maps: class indices and masks by name, each ``(B, 1, *spatial)`` or None.
    """
    shape = tuple(logits.shape)
    if len(shape) < 3 or num_classes not in (None, shape[1]) or 0 in shape:
        raise ValueError(
            f"logits of shape {shape} do not fit: expected (batch, {num_classes or 'classes'}, *spatial), no size 0. "
            "Pass logits, not labels, and set num_classes to the number of output channels."
        )
    for name, value in {"logits": logits, "reference": reference}.items():
        if value is not None and not value.is_floating_point():
            raise ValueError(f"{name} of type {value.dtype} do not fit: expected floats. Pass logits, not labels.")
    if reference is not None and tuple(reference.shape) != shape:
        raise ValueError(f"reference has shape {tuple(reference.shape)}, expected {shape}: logits like the input.")
    expected = (shape[0], 1, *shape[2:])
    for name, value in maps.items():
        if value is not None and value.is_complex():
            raise ValueError(f"{name} has complex numbers: expected class indices or a mask.")
        if value is not None and tuple(value.shape) != expected:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected {expected}: class indices or a mask with one channel."
            )
