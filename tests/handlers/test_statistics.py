# SPDX-License-Identifier: Apache-2.0
"""Metrics of an epoch against sums by hand."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Events

from metassl_monai.handlers import TrainingStatistics
from metassl_monai.losses import (
    FixedThreshold,
    MetaSSLLabeledLoss,
    MetaSSLUnlabeledLoss,
    MonitoredLoss,
    Region,
    metassl_losses,
)

NAMES = {"supervised": ["network"], "mean_teacher": ["network"], "cps": ["network", "second_network"]}


def observed(run: Any) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """Metrics at the end of each epoch, and what was seen of it by counting voxels."""
    metrics: list[dict[str, float]] = []
    seen: list[dict[str, Any]] = []
    trainer = run.trainer

    def start() -> None:
        seen.append({"losses": defaultdict(list), "regions": defaultdict(list), "totals": []})

    def iteration() -> None:
        for name, value in trainer.state.losses.items():
            seen[-1]["losses"][name].append(value.item())
        for name, loss in run.method.named_losses():
            if getattr(loss, "regions", None) is not None:
                seen[-1]["regions"][name] += loss.regions.flatten().tolist()
        seen[-1]["totals"].append(float(trainer.state.output[0]["loss"]))

    trainer.add_event_handler(Events.EPOCH_STARTED, start)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, iteration)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: metrics.append(dict(trainer.state.metrics)))
    run.train()
    return metrics, seen


@pytest.mark.parametrize("kind", ["metassl", "own"])
@pytest.mark.parametrize("name", list(NAMES))
def test_losses_are_means_over_the_epoch_as_they_enter_the_total(name: str, kind: str, make_run: Callable) -> None:
    metrics, seen = observed(make_run(name, kind=kind, epochs=2, handlers=[TrainingStatistics()]))
    for found, epoch in zip(metrics, seen, strict=True):
        assert len(epoch["totals"]) == 3
        assert found["loss"] == pytest.approx(sum(epoch["totals"]) / 3, rel=1e-5)
        for term, values in epoch["losses"].items():
            assert found[f"loss/{term}"] == pytest.approx(sum(values) / 3, rel=1e-5)
        assert {key for key in found if key.startswith("loss/")} == {f"loss/{term}" for term in epoch["losses"]}
    assert metrics[0]["loss"] != metrics[1]["loss"]


@pytest.mark.parametrize("name", list(NAMES))
def test_region_fractions_are_those_of_all_voxels_of_the_epoch(name: str, make_run: Callable) -> None:
    metrics, seen = observed(make_run(name, epochs=2, handlers=[TrainingStatistics()]))
    for found, epoch in zip(metrics, seen, strict=True):
        for term, values in epoch["regions"].items():
            fractions = {region: found[f"regions/{term}/{region.name}"] for region in Region}
            assert sum(fractions.values()) == pytest.approx(1)
            for region, fraction in fractions.items():
                assert fraction == pytest.approx(values.count(region) / len(values), abs=1e-6)
            assert len({round(fraction, 3) for fraction in fractions.values()}) > 1
        assert sum(key.startswith("regions/") for key in found) == 4 * len(epoch["regions"])


@pytest.mark.parametrize("name", list(NAMES))
def test_pixels_are_mean_counts_a_step_of_unanimous_foreground_and_of_all_discrepant_voxels(
    name: str, make_run: Callable
) -> None:
    run = make_run(name, epochs=1, handlers=[TrainingStatistics()])
    seen: dict[str, int] = defaultdict(int)

    def count(term: str, reference: int) -> Callable:
        def hook(loss: Any, arguments: Any, _: Any) -> None:
            labels = arguments[reference].argmax(1).flatten().tolist()
            for region, label in zip(loss.regions.flatten().tolist(), labels, strict=True):
                seen[f"{term}/{Region(region).name}"] += region >= 2 or label > 0

        return hook

    for term, loss in run.method.named_losses():
        loss.register_forward_hook(count(term, 2 if term.startswith("labeled") else 1))
    metrics = run.train().trainer.state.metrics
    found = {key.removeprefix("pixels/"): value for key, value in metrics.items() if key.startswith("pixels/")}
    assert seen
    assert found == {key: pytest.approx(seen[key] / 3) for key in found}
    assert {key for key, value in seen.items() if value} <= set(found)


@pytest.mark.parametrize("name", list(NAMES))
def test_monitored_losses_train_as_the_own_ones_and_show_regions_and_thresholds(name: str, make_run: Callable) -> None:
    runs = {}
    for kind in ("own", "monitored"):
        run = make_run(name, kind="own", epochs=2, folder=kind, handlers=[TrainingStatistics()])
        if kind == "monitored":
            for losses, metassl in (
                (run.method.labeled_losses, MetaSSLLabeledLoss),
                (run.method.unlabeled_losses, MetaSSLUnlabeledLoss),
            ):
                for pair, loss in losses.items():
                    losses[pair] = MonitoredLoss(loss, metassl(3))
        runs[kind] = run.train()
    own, monitored = (runs[kind].method.state_dict() for kind in ("own", "monitored"))
    assert all(torch.equal(value, monitored[key]) for key, value in own.items())
    found = {key.split("/")[0] for key in runs["monitored"].trainer.state.metrics}
    assert found == {"loss", "learning_rate", "regions", "pixels", "threshold"}
    moved = [value for key, value in monitored.items() if key.endswith("threshold.values")]
    assert any((value != 0.5).any() for value in moved)


@pytest.mark.parametrize("name", list(NAMES))
def test_thresholds_are_those_at_the_end_of_the_epoch(name: str, make_run: Callable) -> None:
    run = make_run(name, epochs=2, handlers=[TrainingStatistics()])
    metrics, _ = observed(run)
    terms = [f"{stream}/{pair}" for stream in ("labeled", "unlabeled") for pair in NAMES[name]]
    if name == "supervised":
        terms = ["labeled/network"]
    expected = {f"threshold/{term}/{c}" for term in terms for c in range(3)}
    assert {key for key in metrics[-1] if key.startswith("threshold/")} == expected
    for term, loss in run.method.named_losses():
        for c, value in enumerate(loss.partition.threshold.values.tolist()):
            assert metrics[-1][f"threshold/{term}/{c}"] == pytest.approx(value)
    assert any(metrics[0][key] != metrics[1][key] for key in expected)


def test_fixed_threshold_is_reported_too(make_run: Callable) -> None:
    run = make_run("mean_teacher", epochs=1, handlers=[TrainingStatistics()])
    run.method.labeled_losses["network"] = MetaSSLLabeledLoss(3, threshold=FixedThreshold(0.7))
    run.method.unlabeled_losses["network"] = MetaSSLUnlabeledLoss(3, threshold=FixedThreshold(0.7))
    metrics = run.train().trainer.state.metrics
    assert metrics["threshold/labeled/network/0"] == metrics["threshold/unlabeled/network/0"] == pytest.approx(0.7)


def test_measured_accuracies_are_those_at_the_end_of_the_epoch(make_run: Callable) -> None:
    run = make_run("mean_teacher", epochs=1, handlers=[TrainingStatistics()])
    labeled, unlabeled = metassl_losses(3, "region_accuracy")
    run.method.labeled_losses["network"], run.method.unlabeled_losses["network"] = labeled, unlabeled
    metrics = run.train().trainer.state.metrics
    found = {key: value for key, value in metrics.items() if key.startswith("accuracy/")}
    accuracies = unlabeled.region_weights()
    assert found == {
        f"accuracy/unlabeled/network/{region.name}/{c}": accuracies[region, c].item()
        for region in Region
        for c in range(3)
    }
    assert (accuracies < 1).any()


def test_own_losses_have_neither_regions_nor_thresholds(make_run: Callable) -> None:
    metrics = make_run("cps", kind="own", epochs=1, handlers=[TrainingStatistics()]).train().trainer.state.metrics
    assert {key.split("/")[0] for key in metrics} == {"loss", "learning_rate"}


def test_learning_rate_is_that_at_the_end_of_the_epoch(make_run: Callable) -> None:
    metrics, _ = observed(run := make_run("supervised", epochs=2, handlers=[TrainingStatistics()]))
    assert metrics[1]["learning_rate"] == run.trainer.optimizer.param_groups[0]["lr"] < metrics[0]["learning_rate"]


@pytest.mark.parametrize("name", list(NAMES))
def test_metrics_are_numbers_under_names_that_mlflow_allows(name: str, make_run: Callable) -> None:
    metrics = make_run(name, epochs=1, handlers=[TrainingStatistics()]).train().trainer.state.metrics
    for key, value in metrics.items():
        assert re.fullmatch(r"[\w.\- /]+", key)
        assert type(value) is float


def test_sums_do_not_alias_what_the_engine_holds(make_run: Callable) -> None:
    statistics = TrainingStatistics()
    run = make_run("mean_teacher", epochs=1, handlers=[statistics])
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), run.trainer.terminate)
    run.train()
    before = {name: value.clone() for name, value in statistics.sums.items()}
    statistics.accumulate(run.trainer)
    assert all(torch.equal(statistics.sums[name], 2 * value) for name, value in before.items())
    assert run.trainer.state.losses["labeled/network"].equal(before["loss/labeled/network"])
