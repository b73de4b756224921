# SPDX-License-Identifier: Apache-2.0
"""Where the encoder's features come out of MONAI's networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["encoder_taps"]


def encoder_taps(network: nn.Module) -> tuple[str, ...]:
    """Names of the submodules of a MONAI network whose outputs are all that its decoder sees, the shallowest first.

    Known are BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet, UNETR and VNet, and classes derived from them. The deepest
    features of UNETR are tokens, ``(B, tokens, channels)``; all others are maps, ``(B, channels, *spatial)``.

    Args:
        network: a network of ``monai.networks.nets``.

    Returns:
        Names for ``network.get_submodule``.

    Raises:
        ValueError: when the network is of another type.

    Example::

        >>> from monai.networks.nets import BasicUNet
        >>> from metassl_monai.networks import encoder_taps
        >>> encoder_taps(BasicUNet())
        ('conv_0', 'down_1', 'down_2', 'down_3', 'down_4')
    """
    for ancestor in type(network).__mro__:
        if ancestor.__module__.startswith("monai.networks.nets.") and ancestor.__name__ in _TAPS:
            return _TAPS[ancestor.__name__](network)
    raise ValueError(
        f"where the encoder of {type(network).__name__} ends is not known: known are {', '.join(sorted(_TAPS))}. Use "
        "one of them or a network with submodules `encoder` and `decoder`, or name the submodules whose outputs are "
        "the encoder's features."
    )


def _numbered(prefix: str, modules: Any) -> tuple[str, ...]:
    return tuple(f"{prefix}.{i}" for i in range(len(modules)))


def _nested(network: Any) -> tuple[str, ...]:
    """UNet: each level is (down, skip connection around the levels below, up)."""
    names, block, prefix = [], network.model, "model"
    while isinstance(block, nn.Sequential) and len(block) == 3 and hasattr(block[1], "submodule"):
        names.append(f"{prefix}.0")
        block, prefix = block[1].submodule, f"{prefix}.1.submodule"
    return (*names, prefix)


# By the name of the class, since importing all of MONAI's networks takes seconds.
_TAPS: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "BasicUNet": lambda network: ("conv_0", "down_1", "down_2", "down_3", "down_4"),
    "DynUNet": lambda network: ("input_block", *_numbered("downsamples", network.downsamples), "bottleneck"),
    "SegResNet": lambda network: _numbered("down_layers", network.down_layers),
    # the skip of 1/16 resolution comes straight from the transformer
    "SwinUNETR": lambda network: (
        *(f"encoder{i}" for i in range(1, 5)),
        "swinViT.layers3.0",
        "encoder10",
    ),
    "UNETR": lambda network: (*(f"encoder{i}" for i in range(1, 5)), "vit.norm"),
    "UNet": _nested,
    "VNet": lambda network: ("in_tr", "down_tr32", "down_tr64", "down_tr128", "down_tr256"),
}
