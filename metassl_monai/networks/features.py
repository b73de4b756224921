# SPDX-License-Identifier: Apache-2.0
"""Features of any network: read them, replace them, decode them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from .encoder_taps import encoder_taps

__all__ = ["Features", "Split"]


class Split(NamedTuple):
    """What one forward pass of a network shows."""

    logits: Tensor
    """``(B, C, *spatial)``."""
    tapped: dict[str, Any]
    """Output of each tap, by name."""
    encoded: list[Tensor]
    """The encoder's features, which :meth:`Features.decode` takes."""


class Features:
    """A way into a network, which stays what it is: hooks on submodules record their outputs or replace them.

    All skip connections and the deepest features of a U-shaped network are outputs of submodules. Replacing all of them
    therefore *is* a call of the decoder, whatever the image. Networks with submodules ``encoder`` and ``decoder``, such
    as :class:`UNet2D` and :class:`VNet3D`, are decoded by the latter; others by replacement, which computes the encoder
    in vain but leaves the running statistics of its batch norm alone.

    This is no module and owns no weights: a method may hold it beside the network without a second name for the
    weights in its state dict. It can be copied (also as part of a method), pickled and compiled. Hooks are in place
    from the start, since compiled code does not see later ones, and do nothing unless the network is called from here.

    Args:
        network: the network.
        taps: names of submodules whose outputs are wanted, as in ``network.get_submodule(name)``.
        encoder: names of the submodules whose outputs are the encoder's features; those of :func:`encoder_taps` or, if
            the network has them, its ``encoder`` and ``decoder`` when None.

    Raises:
        ValueError: when the network has no submodule of a name.

    Example::

        >>> import torch
        >>> from monai.networks.nets import BasicUNet
        >>> from metassl_monai.networks import Features
        >>> features = Features(BasicUNet(2, 1, 3, features=(4, 4, 8, 8, 8, 4)).eval(), taps=["upcat_4"])
        >>> logits, tapped, encoded = features.split(torch.randn(1, 1, 32, 32))
        >>> tapped["upcat_4"].shape, len(encoded)
        (torch.Size([1, 8, 4, 4]), 5)
        >>> features.decode(encoded).equal(logits)
        True
    """

    def __init__(self, network: nn.Module, taps: Sequence[str] = (), encoder: Sequence[str] | None = None) -> None:
        self.network = network
        self.taps = tuple(taps)
        self._given_encoder = encoder
        self._bus = _Bus()
        self._image: tuple[Any, Any] | None = None
        self._hooked = tuple(dict.fromkeys((*self.taps, *self._encoder_or_nothing())))
        for name in self._hooked:
            _submodule(network, name).register_forward_hook(_Tap(name, self._bus))

    def __call__(self, x: Tensor, substitute: Mapping[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Run the network.

        Args:
            x: images, ``(B, in_channels, *spatial)``.
            substitute: what replaces the output of a tap, by name.

        Returns:
            Logits ``(B, C, *spatial)`` and the output of each tap by name, which is the substitute where there is one.

        Raises:
            ValueError: when ``substitute`` names no tap, or a tap is not on the network's way.
        """
        unknown = sorted(set(substitute or ()).difference(self._hooked))
        if unknown:
            raise ValueError(f"substitute names {unknown}, which are no taps: the taps are {sorted(self._hooked)}.")
        logits, recorded = self._listen(self.network, x, substitute or {})
        return logits, self._wanted(recorded)

    def split(self, x: Tensor) -> Split:
        """Run the network on images ``(B, in_channels, *spatial)`` once and keep the encoder's features as well.

        Raises:
            ValueError: when the encoder is not known, or a tap is not on the network's way.
        """
        if self._native:
            encoded, before = self._listen(self.network.get_submodule("encoder"), x, {})
            logits, after = self._listen(self.network.get_submodule("decoder"), encoded, {})
            return Split(logits, self._wanted({**before, **after}), list(encoded))
        names = self._encoder()
        logits, recorded = self._listen(self.network, x, {})
        self._image = (x.shape[1:], x.dtype)
        return Split(logits, self._wanted(recorded), list(self._wanted(recorded, names).values()))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map images ``(B, in_channels, *spatial)`` to the encoder's features, from full resolution down.

        Raises:
            ValueError: when the encoder is not known.
        """
        return list(self.network.get_submodule("encoder")(x)) if self._native else self.split(x).encoded

    def decode(self, encoded: Sequence[Tensor]) -> Tensor:
        """Map features such as those of :meth:`encode` to logits ``(B, C, *spatial)``; see :meth:`decode_tapped`."""
        return self.decode_tapped(encoded)[0]

    def decode_tapped(self, encoded: Sequence[Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Map the encoder's features to logits.

        Args:
            encoded: as many features, of the same shapes but for the batch, as the last images gave.

        Returns:
            Logits ``(B, C, *spatial)`` and the outputs of those taps that are passed on the way, by name.

        Raises:
            ValueError: when the number of features is wrong or, unless the network has a ``decoder``, no images were
                encoded before, or the encoder is not known.
        """
        if self._native:
            logits, recorded = self._listen(self.network.get_submodule("decoder"), list(encoded), {})
        else:
            names = self._encoder()
            if self._image is None or len(names) != len(encoded):
                raise ValueError(f"decode takes the {len(names)} features that split or encode returned: {names}.")
            shape, dtype = self._image
            blank = encoded[0].new_zeros((), dtype=dtype).expand(len(encoded[0]), *shape)
            logits, recorded = self._listen(self.network, blank, dict(zip(names, encoded, strict=True)))
        return logits, {name: recorded[name] for name in self.taps if name in recorded}

    def require_encoder(self) -> None:
        """Raise ValueError now, and not at the first images, when the encoder is not known."""
        if not self._native:
            self._encoder()

    @property
    def _native(self) -> bool:
        return self._given_encoder is None and _has_halves(self.network)

    def _encoder(self) -> tuple[str, ...]:
        return encoder_taps(self.network) if self._given_encoder is None else tuple(self._given_encoder)

    def _encoder_or_nothing(self) -> tuple[str, ...]:
        """Without an encoder that is known, taps can still be read."""
        try:
            return () if self._native else self._encoder()
        except ValueError:
            return ()

    def _listen(self, run: Callable[..., Any], x: Any, substitute: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        bus = self._bus
        bus.recorded, bus.substitute = {}, dict(substitute)
        try:
            with _statistics_kept([self.network.get_submodule(name) for name in substitute]):
                output = run(x)
            return output, bus.recorded
        finally:
            # features that stay here would keep the graph of this step alive
            bus.recorded, bus.substitute = None, {}

    def _wanted(self, recorded: dict[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
        names = self.taps if names is None else names
        silent = [name for name in names if name not in recorded]
        if silent:
            raise ValueError(f"{type(self.network).__name__} does not call {silent}: tap submodules that it calls.")
        return {name: recorded[name] for name in names}


class _Bus:
    """What the hooks of one :class:`Features` share; nothing is recorded while ``recorded`` is None."""

    def __init__(self) -> None:
        self.recorded: dict[str, Any] | None = None
        self.substitute: dict[str, Any] = {}


class _Tap:
    """A hook. An object and no closure, so that a copy of a network has hooks that share the copy of the bus."""

    def __init__(self, name: str, bus: _Bus) -> None:
        self.name = name
        self.bus = bus

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if self.bus.recorded is None:
            return output
        self.bus.recorded[self.name] = self.bus.substitute.get(self.name, output)
        return self.bus.recorded[self.name]


@contextmanager
def _statistics_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Run modules whose outputs are thrown away in evaluation mode: they must not learn statistics from them."""
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _has_halves(network: nn.Module) -> bool:
    return all(isinstance(getattr(network, half, None), nn.Module) for half in ("encoder", "decoder"))


def _submodule(network: nn.Module, name: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError:
        known = [child for child, _ in network.named_children()]
        raise ValueError(
            f"{type(network).__name__} has no submodule {name!r} to tap: its children are {known}, "
            "and named_modules() lists all."
        ) from None
