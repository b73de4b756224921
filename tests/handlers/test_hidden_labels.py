# SPDX-License-Identifier: Apache-2.0
"""References against hidden labels: right numbers, and not a trace in the training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.transforms import RandGaussianNoised
from torch import nn

from metassl_monai.engines import PairedDataLoader, SemiSupervisedTrainer
from metassl_monai.handlers import HiddenLabels
from metassl_monai.handlers.judged_pairs import pairs_and_images
from metassl_monai.ignore import IGNORE
from metassl_monai.losses import MetaSSLUnlabeledLoss, PseudoLabelLoss, Region
from metassl_monai.methods import BidirectionalCopyPaste

LABELS = {"0": "background", "1": "right ventricle", "2": "muscle"}


@pytest.fixture
def monitor(make_samples: Callable) -> Callable[..., HiddenLabels]:
    def make(**arguments: Any) -> HiddenLabels:
        return HiddenLabels(DataLoader(Dataset(make_samples(5, True)), batch_size=2), LABELS, **arguments)

    return make


def voxels(run: Any, loader: Any) -> Iterator[tuple[str, int, int, int, int]]:
    """Pair, region, prediction, reference and truth of every voxel, one at a time; networks are not random."""
    method = run.method
    for batch in loader:
        with torch.no_grad():
            logits = [network(batch["image"]) for network in (method.network, method.second_network)]
        for name, prediction, reference in (("network", *logits), ("second_network", *logits[::-1])):
            thresholds = method.unlabeled_losses[name].partition.threshold.values
            probability = reference.softmax(1)
            for b in range(len(reference)):
                for x in range(reference.shape[2]):
                    for y in range(reference.shape[3]):
                        label = int(reference[b, :, x, y].argmax())
                        guess = int(prediction[b, :, x, y].argmax())
                        suspicious = probability[b, label, x, y] <= thresholds[label]
                        region = 2 * (guess != label) + int(suspicious)
                        yield name, region, guess, label, int(batch["label"][b, 0, x, y])


def test_metrics_equal_those_counted_voxel_by_voxel(make_run: Callable, monitor: Callable, steady: Callable) -> None:
    hidden = monitor()
    run = make_run("cps", epochs=4, handlers=[hidden]).train()
    for loss in run.method.unlabeled_losses.values():
        loss.partition.threshold.values.fill_(0.36)  # so that every region has many voxels
    steady(run.method)
    hidden.reset(run.trainer)
    hidden.compare(run.trainer)
    found = {key: value for key, value in run.trainer.state.metrics.items() if key.startswith("hidden/")}
    counts: Counter = Counter()
    for name, region, _, label, truth in voxels(run, hidden.data_loader):
        for suffix in ("", "_foreground") if label > 0 else ("",):
            cell = (name, suffix, Region(region).name)
            counts[("pixels", *cell)] += 1
            counts[("right", *cell)] += label == truth
        for value, structure in ((1, "right_ventricle"), (2, "muscle")):
            counts[("both", name, structure)] += label == truth == value
            counts[("sum", name, structure)] += (label == value) + (truth == value)
    expected = {}
    for key, count in counts.items():
        if key[0] == "pixels":
            _, name, suffix, region_name = key
            expected[f"hidden/{name}/pixels{suffix}/{region_name}"] = count
            expected[f"hidden/{name}/accuracy{suffix}/{region_name}"] = counts[("right", *key[1:])] / count
        if key[0] == "sum":
            expected[f"hidden/{key[1]}/dice/{key[2]}"] = 2 * counts[("both", *key[1:])] / count
    assert len(expected) == 36
    assert {key: value for key, value in found.items() if value != 0 or key in expected} == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_voxels_without_a_hidden_label_are_not_counted(make_run: Callable, make_samples: Callable) -> None:
    run = make_run("cps", epochs=1).train()

    def pixels(missing: int) -> float:
        samples = make_samples(4, True)
        for sample in samples:
            sample["label"] = sample["label"].clone()
            sample["label"][:, :missing] = IGNORE
        HiddenLabels(DataLoader(Dataset(samples), batch_size=2), LABELS).compare(run.trainer)
        metrics = run.trainer.state.metrics
        return sum(metrics[f"hidden/network/pixels/{region.name}"] for region in Region)

    side = make_samples(1, True)[0]["label"].shape[-1]
    assert pixels(0) == 4 * side * side
    assert pixels(3) == 4 * (side - 3) * side


def test_a_teacher_is_compared_as_it_teaches_by_the_statistics_of_the_batch(
    make_run: Callable, monitor: Callable
) -> None:
    """Its weights lag behind its student's, whose statistics it has; with those it can see nothing at all."""
    hidden = monitor()
    run = make_run("mean_teacher", epochs=1).train()
    found = {}
    for lag in (False, True):
        for module in run.method.teacher.modules():
            if lag and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.add_(100)
        before = {key: value.clone() for key, value in run.method.state_dict().items()}
        hidden.reset(run.trainer)
        hidden.compare(run.trainer)
        found[lag] = dict(run.trainer.state.metrics)
        assert all(torch.equal(value, before[key]) for key, value in run.method.state_dict().items())
    assert found[True] == found[False]
    assert any(key.startswith("hidden/") for key in found[True])


@pytest.mark.parametrize("seed", [1337, None])
@pytest.mark.parametrize("kind", ["metassl", "own"])
@pytest.mark.parametrize("name", ["supervised", "mean_teacher", "cps"])
def test_the_training_is_the_same_bit_for_bit(
    name: str, kind: str, seed: int | None, make_run: Callable, monitor: Callable, differences: Callable
) -> None:
    states = {}
    for watched in (False, True):
        hidden = monitor()
        # noise from a transform of its own, and a seed beside those of the run
        hidden.data_loader.dataset.transform = RandGaussianNoised("image", prob=1.0)
        handlers = [hidden] if watched else []
        run = make_run(name, kind=kind, seed=seed, epochs=3, folder=str(watched), handlers=handlers).train()
        states[watched] = {**run.state(), "random": torch.get_rng_state(), "training": run.method.training}
    assert differences(states[False], states[True]) == []


def test_what_is_compared_depends_on_the_losses_and_the_pairs(make_run: Callable, monitor: Callable) -> None:
    kinds = {}
    for name, kind in (("cps", "metassl"), ("cps", "own"), ("supervised", "metassl")):
        run = make_run(name, kind=kind, epochs=1, folder=name + kind, handlers=[monitor()]).train()
        names = [key.split("/") for key in run.trainer.state.metrics if key.startswith("hidden/")]
        kinds[name, kind] = {(pair, what.removesuffix("_foreground")) for _, pair, what, _ in names}
    pairs = ("network", "second_network")
    assert kinds["cps", "metassl"] == {(p, what) for p in pairs for what in ("accuracy", "pixels", "dice")}
    assert kinds["cps", "own"] == {(p, "dice") for p in pairs}
    assert kinds["supervised", "metassl"] == set()


def test_a_handler_before_it_finds_the_metrics_at_the_end_of_those_epochs_that_have_them(
    make_run: Callable, monitor: Callable
) -> None:
    seen = []

    class Reader:
        def attach(self, engine: Any) -> None:
            engine.add_event_handler(
                Events.EPOCH_COMPLETED,
                lambda: seen.append(any(key.startswith("hidden/") for key in engine.state.metrics)),
            )

    make_run("cps", epochs=4, handlers=[Reader()], last_handlers=[monitor(interval=3)]).train()
    assert seen == [False, False, True, True]


def test_the_same_noise_is_drawn_each_time(make_run: Callable, monitor: Callable) -> None:
    hidden = monitor()
    hidden.data_loader.dataset.transform = RandGaussianNoised("image", prob=1.0)
    run = make_run("mean_teacher", epochs=1, handlers=[hidden]).train()
    first = dict(run.trainer.state.metrics)
    hidden.compare(run.trainer)
    assert run.trainer.state.metrics == first


def test_pictures_get_the_first_pair(make_run: Callable, monitor: Callable) -> None:
    calls = []
    hidden = monitor(pictures=lambda engine, judged, truth: calls.append((judged, truth)))
    make_run("cps", epochs=2, handlers=[hidden]).train()
    batch = next(iter(hidden.data_loader))
    assert len(calls) == 2
    for judged, truth in calls:
        assert torch.equal(judged.image, batch["image"])
        assert torch.equal(truth, batch["label"])
        assert judged.inside.all()
        assert judged.regions.dtype == torch.uint8
        assert torch.equal(judged.regions >= Region.DC, judged.reference != judged.prediction)


def pair(samples: int, target: Any = None) -> SimpleNamespace:
    return SimpleNamespace(name="pair", target=target, prediction=torch.zeros(samples))


def test_pairs_take_their_images_in_order() -> None:
    def slices(images: int, *pairs: Any) -> list[tuple[int, int]]:
        return [(part.start, part.stop) for _, part in pairs_and_images(pairs, images)]

    assert slices(4, pair(4), pair(4)) == [(0, 4), (0, 4)]
    assert slices(5, pair(3), pair(2)) == [(0, 3), (3, 5)]
    assert slices(5, pair(9, "target"), pair(3), pair(1, "target"), pair(2), pair(5)) == [(0, 3), (3, 5), (0, 5)]
    with pytest.raises(ValueError, match="only 1 of 4 unlabeled images are left"):
        slices(4, pair(3), pair(2))


class Echo(nn.Module):
    """Says of each voxel that it is of the class that it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(4.0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -self.sharpness * (image - torch.arange(3.0).view(1, 3, 1, 1)) ** 2


def blobs(count: int) -> list[dict[str, torch.Tensor]]:
    """Images that are their own labels: a square of each class, at another place in each image."""
    found = []
    for i in range(count):
        label = torch.zeros(1, 12, 12)
        label[0, i : i + 4, 1:5], label[0, 2:7, 6 + i % 3 : 10 + i % 3] = 1, 2
        found.append({"image": label.clone(), "label": label})
    return found


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_halves_of_copy_paste_are_compared_with_their_own_images(batch_size: int) -> None:
    method = BidirectionalCopyPaste(Echo(), PseudoLabelLabeled(), MetaSSLUnlabeledLoss(3), ramp=lambda step: 1.0)
    loaders = [
        DataLoader(Dataset(blobs(3)), batch_size=2),
        DataLoader(Dataset([{"image": item["image"]} for item in blobs(3)]), batch_size=2),
    ]
    hidden = HiddenLabels(DataLoader(Dataset(blobs(7)), batch_size=batch_size), LABELS)
    trainer = SemiSupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=PairedDataLoader(*loaders, length=2),
        method=method,
        optimizer=torch.optim.SGD(method.parameters(), lr=0.0),
        train_handlers=[hidden],
    )
    before = method.paste
    trainer.run()
    assert method.paste is before
    metrics = trainer.state.metrics
    pairs = ("inward",) if batch_size == 1 else ("inward", "outward")
    for name in pairs:
        regions = [key for key in metrics if key.startswith(f"hidden/{name}/accuracy")]
        assert regions
        assert all(metrics[key] == 1 for key in regions)
        assert metrics[f"hidden/{name}/dice/muscle"] == 1
    unlabeled = sum(metrics[f"hidden/{name}/pixels/{region.name}"] for name in pairs for region in Region)
    assert 0 < unlabeled < 7 * 144
    assert {key.split("/")[1] for key in metrics if key.startswith("hidden/")} == set(pairs)


class PseudoLabelLabeled(nn.Module):
    """A labeled loss of the plainest kind."""

    def forward(self, prediction: Any, target: Any, reference: Any, label: Any, mask: Any, ramp: Any) -> Any:
        return PseudoLabelLoss()(prediction, reference, target, mask)
