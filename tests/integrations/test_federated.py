# SPDX-License-Identifier: Apache-2.0
"""Federated learning through MONAI's own client, on drawn hearts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

from metassl_monai.bundle.locate import copy_bundle
from metassl_monai.integrations.federated import MethodAlgo, exchanged_networks

SMALL = {"spatial_size": [32, 32], "iterations": 4, "iterations_per_epoch": 2, "num_workers": 0}
SMALL |= {"features": [4, 8, 16, 32, 64], "labeled_batch_size": 2, "unlabeled_batch_size": 2}


def site(algorithm: type[MonaiAlgo], folder: Path, phantom: Path, method: str = "cps", **arguments) -> MonaiAlgo:
    """A client with a bundle of its own."""
    bundle = copy_bundle("phantom_segmentation", folder)
    for name in ("train", method):
        file = bundle / "configs" / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"dataset_dir": str(phantom.parent), **SMALL}))
    client = algorithm(bundle_root=bundle.name, **arguments)
    client.initialize(extra={ExtraItems.CLIENT_NAME: folder.name, ExtraItems.APP_ROOT: str(folder)})
    return client


def weights(client: MonaiAlgo) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in client.trainer.network.state_dict().items()}


def test_the_client_of_monai_runs_rounds_with_its_defaults(phantom, tmp_path):
    client = site(MonaiAlgo, tmp_path, phantom)
    shared = weights(client)
    for number in (1, 2):
        client.train(ExchangeObject(weights=shared))
        difference = client.get_weights().weights
        assert difference.keys() == shared.keys()
        shared = {name: value + difference[name] for name, value in shared.items()}
        metrics = client.evaluate(ExchangeObject(weights=shared)).metrics
        assert 0 <= metrics["val_mean_dice"] <= 1
        assert client.trainer.state.iteration == 2 * number
    client.finalize()


@pytest.mark.parametrize(
    ("method", "others"),
    [
        ("dualnet", "second."),
        pytest.param("cps", "second_network.", marks=pytest.mark.slow),
        pytest.param("mean_teacher", "teacher.", marks=pytest.mark.slow),
    ],
)
def test_two_sites_share_every_network(method, others, phantom, tmp_path):
    files = {
        "config_train_filename": ["configs/train.json", f"configs/{method}.json"],
        "config_evaluate_filename": [f"configs/{name}.json" for name in ("train", method, "evaluate")],
    }
    folders = [tmp_path / name for name in ("a", "b")]
    clients = [site(MethodAlgo, folder, phantom, method, **files) for folder in folders]
    shared = weights(clients[0])
    assert any(name.startswith(others) for name in shared)
    differences = []
    for number, client in enumerate(clients):
        torch.manual_seed(number)
        client.train(ExchangeObject(weights=shared))
        differences.append(client.get_weights().weights)
        assert differences[-1].keys() == shared.keys()
        assert any(change.any() for name, change in differences[-1].items() if name.startswith(others))
    shared = {name: value + sum(d[name] for d in differences) / 2 for name, value in shared.items()}
    for client in clients:
        client.train(ExchangeObject(weights=shared))  # begins with what the server sent
        assert client.global_weights.keys() == shared.keys()
        client.evaluate(ExchangeObject(weights=shared))
        received = client.evaluator.network.state_dict()
        assert received
        assert all(torch.equal(value, shared[name].to(value)) for name, value in received.items())


def test_what_is_exchanged_covers_the_networks_and_no_statistics(phantom, tmp_path):
    client = site(MethodAlgo, tmp_path, phantom)
    method = client.trainer.unwrapped_method
    exchanged = exchanged_networks(method).state_dict(keep_vars=True)
    networks = {id(value) for name, value in method.state_dict(keep_vars=True).items() if "_losses." not in name}
    assert {id(value) for value in exchanged.values()} == networks
    assert list(method.network.state_dict()) == list(exchanged)[: len(method.network.state_dict())]
    assert "second_network" not in dict(method.network.named_children())
