# SPDX-License-Identifier: Apache-2.0
"""Every method as one row: a new method is one more :class:`Row`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from method_rows import AUXILIARY, METHODS
from monai.data import set_rnd
from torch import Tensor, nn

from metassl_monai.losses import (
    CrossEntropyDiceLoss,
    KLDivergenceLoss,
    PseudoLabelDiceLoss,
    PseudoLabelLoss,
    SharpenedMSELoss,
    SoftmaxMSELoss,
    metassl_losses,
)
from metassl_monai.methods import (
    ALHVR,
    BidirectionalCopyPaste,
    CopyPastePretraining,
    CrossConsistencyTraining,
    CrossPseudoSupervision,
    DualNet,
    FixMatch,
    MeanTeacher,
    Method,
    MutualConsistency,
    RDrop,
    Supervised,
)

CLASSES = 3
LABELED, UNLABELED = 2, 3
# of FixMatch: below the usual 0.95, so that voxels of an untrained network lie on both sides
SURE = 0.4

Batch = dict[str, dict[str, Tensor]]
Images = Callable[[Batch, Any], list[Tensor]]


class Encoder(nn.Module):
    """Features of two levels: full and half resolution."""

    def __init__(self, dims: int, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        convolution, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 2]
        # a bias before batch norm has no effect
        self.first = convolution(1, 4, 3, padding=1, bias=not batch_norm)
        self.norm = norm(4) if batch_norm else nn.Identity()
        self.second = convolution(4, 4, 3, stride=2, padding=1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = F.dropout(self.norm(self.first(x)).tanh(), self.dropout, self.training)
        return [fine, self.second(fine).tanh()]


class Decoder(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.head = (nn.Conv2d, nn.Conv3d)[dims - 2](8, CLASSES, 3, padding=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        fine, coarse = features
        return self.head(torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], dim=1))


class Network(nn.Module):
    def __init__(self, dims: int, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.encoder = Encoder(dims, batch_norm, dropout)
        self.decoder = Decoder(dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def labeled_images(batch: Batch, mask: Any = None) -> list[Tensor]:
    return [batch["labeled"]["image"]]


def whole_batch(batch: Batch, mask: Any = None) -> list[Tensor]:
    return [torch.cat([batch["labeled"]["image"], batch["unlabeled"]["image"]])]


def weak_then_strong(batch: Batch, mask: Any = None) -> list[Tensor]:
    strong = torch.cat([batch["labeled"]["image_strong"], batch["unlabeled"]["image_strong"]])
    return [*whole_batch(batch), strong]


def weak_then_unlabeled_strong(batch: Batch, mask: Any = None) -> list[Tensor]:
    return [*whole_batch(batch), batch["unlabeled"]["image_strong"]]


def twice(batch: Batch, mask: Any = None) -> list[Tensor]:
    return [torch.cat(whole_batch(batch) * 2)]


def halves(images: Tensor) -> list[Tensor]:
    return list(images.split((len(images) + 1) // 2))


def unlabeled_then_labeled_halves(batch: Batch, mask: Any = None) -> list[Tensor]:
    return [*halves(batch["unlabeled"]["image"]), *halves(batch["labeled"]["image"])]


def labeled_in_unlabeled(batch: Batch, mask: Tensor) -> list[Tensor]:
    """Halves of unlabeled images ``i`` with voxels of labeled image ``i``, counted around, where the mask is set."""
    mixed = batch["unlabeled"]["image"].clone()
    for i, inside in enumerate(mask):
        mixed[i][inside] = batch["labeled"]["image"][i % LABELED][inside]
    return halves(mixed)


def next_in_own(batch: Batch, mask: Tensor) -> list[Tensor]:
    mixed = batch["labeled"]["image"].clone()
    for i, inside in enumerate(mask):
        mixed[i][inside] = batch["labeled"]["image"][(i + 1) % LABELED][inside]
    return [mixed]


@dataclass(frozen=True)
class Row:
    """A method with what the uniform tests need to know of it."""

    method: type[Method]
    own_unlabeled: Callable[[], nn.Module]
    learns: dict[str, set[str]]
    """By loss term, the submodules that it trains, and no others."""
    reads: dict[str, set[str]]
    """By loss term, the images that its gradient reaches."""
    sees: dict[str, Images]
    """By network, the images of each forward pass of one step, from the batch and the mask of a mixture."""
    further_networks: tuple[str, ...] = ()
    """Arguments that are networks, beside ``network``."""
    made: tuple[str, ...] = ()
    """Learning children that the method makes itself."""
    teachers: tuple[str, ...] = ()
    """Children that follow by moving average."""
    keep: Callable[[int, float], float] = lambda step, decay: decay
    """Weight of the old teacher at a step."""
    predicts: str = "network"
    """The network whose forward passes give the logits that a step returns."""
    passes: tuple[int, ...] = (0,)
    """Which of its passes."""
    mean_of_two: bool = False
    """Whether both networks answer together in inference."""
    random: bool = True
    """Whether two steps from equal states differ, unless seeded alike."""
    without_noise: dict[str, Any] = field(default_factory=dict)
    """Arguments that keep random noise off the images."""
    dropout: float = 0.0
    """Dropout rate of the network."""
    arguments: dict[str, Any] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    """Losses of the class that these arguments leave unused."""
    label: str = ""

    @property
    def networks(self) -> tuple[str, ...]:
        """All children that are networks."""
        return ("network", *self.further_networks, *self.made, *self.teachers)

    @property
    def learning(self) -> set[str]:
        """All submodules that learn from some term."""
        return {name for names in self.learns.values() for name in names}


BOTH_IMAGES = {"labeled/image", "unlabeled/image"}

NETWORKS = ("network", "second_network")
TWO_NETWORKS: dict[str, Any] = {
    "learns": METHODS["cps"].terms(),
    "reads": {f"{stream}/{name}": {f"{stream}/image"} for stream in ("labeled", "unlabeled") for name in NETWORKS},
    "sees": dict.fromkeys(NETWORKS, whole_batch),
    "further_networks": ("second_network",),
}
"""Two networks that see the same images and judge each other."""

ROWS = [
    Row(
        Supervised,
        PseudoLabelLoss,
        learns=METHODS["supervised"].terms(),
        reads={"labeled/network": {"labeled/image"}},
        sees={"network": labeled_images},
        random=False,
    ),
    Row(
        MeanTeacher,
        SoftmaxMSELoss,
        learns=METHODS["mean_teacher"].terms(),
        reads={"labeled/network": {"labeled/image"}, "unlabeled/network": {"unlabeled/image"}},
        sees={"network": whole_batch, "teacher": whole_batch},
        teachers=("teacher",),
        keep=lambda step, decay: min(1 - 1 / (step + 1), decay),
        without_noise={"noise": 0.0},
    ),
    Row(
        CrossPseudoSupervision,
        PseudoLabelLoss,
        **TWO_NETWORKS,
        random=False,
    ),
    Row(
        DualNet,  # its pairs; further terms are in test_dualnet.py
        PseudoLabelLoss,
        **TWO_NETWORKS,
        random=False,
        arguments={"contrastive_ramp": None, "uncertainty": False, "regularization": False},
        mean_of_two=True,
    ),
    Row(
        ALHVR,  # its pairs; further terms are in test_alhvr.py
        SharpenedMSELoss,
        **TWO_NETWORKS,
        arguments={"tap": "decoder.head", "prototypes": False, "entropy": False},
    ),
    Row(
        MutualConsistency,
        SoftmaxMSELoss,
        learns=METHODS["mc_net"].terms(),
        reads={
            f"{stream}/{name}": {f"{stream}/image"}
            for stream in ("labeled", "unlabeled")
            for name in ("network", "second_decoder")
        },
        sees={"network": whole_batch},
        made=("second_decoder",),
        random=False,
        arguments={"temperature": 0.5},
    ),
    Row(
        FixMatch,
        lambda: PseudoLabelLoss(threshold=SURE),
        learns=METHODS["fixmatch"].terms(),
        reads={
            "labeled/weak": {"labeled/image"},
            "labeled/strong": {"labeled/image_strong"},
            "unlabeled/strong": {"unlabeled/image_strong"},
        },
        sees={"network": weak_then_strong},
        random=False,
    ),
    Row(
        FixMatch,
        lambda: PseudoLabelLoss(threshold=SURE),
        learns=METHODS["fixmatch"].terms(plain=True),
        reads={"labeled/weak": {"labeled/image"}, "unlabeled/strong": {"unlabeled/image_strong"}},
        sees={"network": weak_then_unlabeled_strong},
        random=False,
        arguments={"labeled_views": "weak"},
        unused=frozenset({"labeled/strong"}),
        label="FixMatch-weak",
    ),
    Row(
        RDrop,
        KLDivergenceLoss,
        learns=METHODS["rdrop"].terms(),
        reads={
            f"{stream}/{name}": {f"{stream}/image"}
            for stream in ("labeled", "unlabeled")
            for name in ("first", "second")
        },
        sees={"network": twice},
        dropout=0.4,
    ),
    Row(
        CrossConsistencyTraining,
        SoftmaxMSELoss,
        learns=METHODS["cct"].terms(),
        reads={
            **{f"labeled/{name}": {"labeled/image"} for name in ("main", *AUXILIARY)},
            **{f"unlabeled/{name}": {"unlabeled/image"} for name in AUXILIARY},
        },
        sees={"network": whole_batch},
        made=("decoders",),
    ),
    Row(
        BidirectionalCopyPaste,
        PseudoLabelDiceLoss,
        learns=METHODS["bcp"].terms(),
        reads={
            f"{stream}/{name}": BOTH_IMAGES for stream in ("labeled", "unlabeled") for name in ("inward", "outward")
        },
        sees={"network": labeled_in_unlabeled, "teacher": unlabeled_then_labeled_halves},
        teachers=("teacher",),
        predicts="teacher",
        passes=(2, 3),
    ),
    Row(
        CopyPastePretraining,
        PseudoLabelLoss,
        learns={"labeled/own": {"network"}, "labeled/next": {"network"}},
        reads={"labeled/own": {"labeled/image"}, "labeled/next": {"labeled/image"}},
        sees={"network": next_in_own},
    ),
]


def name_of(row: Row) -> str:
    return row.label or row.method.__name__


@pytest.fixture(params=ROWS, ids=name_of)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture(params=[row for row in ROWS if row.teachers], ids=name_of)
def teacher_row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture(params=["metassl", "own"])
def losses(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_network() -> Callable[..., Network]:
    """A small network; every call starts from other weights."""
    seeds = itertools.count()

    def make(batch_norm: bool = True, dropout: float = 0.0, dims: int = 2) -> Network:
        with torch.random.fork_rng():
            torch.manual_seed(next(seeds))
            return Network(dims, batch_norm, dropout)

    return make


@pytest.fixture
def make_losses() -> Callable[[Row, str], tuple[nn.Module, nn.Module]]:
    def make(row: Row, kind: str) -> tuple[nn.Module, nn.Module]:
        return metassl_losses(CLASSES) if kind == "metassl" else (CrossEntropyDiceLoss(), row.own_unlabeled())

    return make


@pytest.fixture
def make_method(make_network: Callable, make_losses: Callable) -> Callable[..., Method]:
    """Build the method of a row; the losses are those of its kind unless given."""

    def make(
        row: Row,
        kind: str = "metassl",
        given: tuple[Any, Any] | None = None,
        ramp: Callable[[int], float] = lambda step: 0.5,
        batch_norm: bool = True,
        dims: int = 2,
        **arguments: Any,
    ) -> Method:
        networks = {name: make_network(batch_norm, row.dropout, dims) for name in ("network", *row.further_networks)}
        labeled_loss, unlabeled_loss = given or make_losses(row, kind)
        return row.method(
            labeled_loss=labeled_loss,
            unlabeled_loss=unlabeled_loss,
            ramp=ramp,
            **networks,
            **row.arguments,
            **arguments,
        ).train()

    return make


@pytest.fixture
def row_of() -> Callable[[str], Row]:
    """The row of that name, for what is one method's own."""
    return {name_of(row): row for row in ROWS}.__getitem__


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    def make(labeled: int = LABELED, unlabeled: int = UNLABELED, spatial: tuple[int, ...] = (8, 8)) -> Batch:
        generator = torch.Generator().manual_seed(0)
        streams = {}
        for stream, number in (("labeled", labeled), ("unlabeled", unlabeled)):
            image = torch.randn(number, 1, *spatial, generator=generator)
            strong = 1.3 * image + 0.3 * torch.randn(number, 1, *spatial, generator=generator)
            streams[stream] = {"image": image, "image_strong": strong}
        label = torch.randint(0, CLASSES, (labeled, 1, *spatial), generator=generator)
        streams["labeled"]["label"] = label.float()
        return streams

    return make


@pytest.fixture
def batch(make_batch: Callable) -> Batch:
    return make_batch()


@pytest.fixture
def play() -> Callable[..., tuple[dict[str, Tensor], Tensor]]:
    """One step of a method, with all that is random seeded as at the start of an epoch."""

    def play(method: Method, batch: Batch, step: int = 0, seed: int = 3) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(seed)
        set_rnd(method, seed)
        return method(batch, step)

    return play


@pytest.fixture
def images_seen() -> Callable[[Method, tuple[str, ...]], dict[str, list[Tensor]]]:
    """A record, by network, of the images of each coming forward pass."""

    def record(method: Method, names: tuple[str, ...]) -> dict[str, list[Tensor]]:
        seen: dict[str, list[Tensor]] = {name: [] for name in names}

        def keep(name: str) -> None:
            # every way through a network leads through its encoder
            encoder = method.get_submodule(name).encoder
            encoder.register_forward_pre_hook(lambda module, inputs: seen[name].append(inputs[0].detach().clone()))

        for name in names:
            keep(name)
        return seen

    return record


@pytest.fixture
def shake() -> Callable[..., None]:
    """Move every learning parameter and every floating buffer of a module at random."""

    def shake(module: nn.Module, scale: float = 1.0) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(scale * torch.randn_like(parameter))
            for buffer in module.buffers():
                buffer.add_(torch.rand_like(buffer) if buffer.is_floating_point() else 1)

    return shake


@pytest.fixture
def snapshot() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    return lambda module: copy.deepcopy(module.state_dict())
