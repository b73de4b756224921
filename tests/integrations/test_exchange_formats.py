# SPDX-License-Identifier: Apache-2.0
"""Exported networks give the logits of the network, for other batches and sizes than the one they were made with."""

from __future__ import annotations

import pytest
import torch

from metassl_monai.bundle import UserError
from metassl_monai.integrations.exchange_formats import write_exported_program, write_onnx
from metassl_monai.networks import MeanOfTwo, ResNet34VNet3D, UNet2D, VNet3D

FEATURES = [4, 8, 16, 32, 64]
NETWORKS = {
    "unet": lambda: UNet2D(2, 4, features=FEATURES),
    "mean of two": lambda: MeanOfTwo(UNet2D(2, 4, features=FEATURES), UNet2D(2, 4, features=FEATURES)),
    "vnet": lambda: VNet3D(2, 4, features=FEATURES),
    "resnet": lambda: ResNet34VNet3D(2, 4, features=FEATURES),
}


def made(name):
    torch.manual_seed(0)
    return NETWORKS[name]().eval(), 2 if name in ("unet", "mean of two") else 3


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_program_takes_any_batch_and_size(name, tmp_path):
    network, axes = made(name)
    write_exported_program(network, 2, axes, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for batch, sizes in ((1, (32, 48, 32)), (3, (48, 32, 64))):
        image = torch.rand(batch, 2, *sizes[:axes])
        torch.testing.assert_close(program(image), network(image))


@pytest.mark.parametrize("name", ["unet", "vnet"])
def test_onnx_takes_any_batch_and_size_by_name(name, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    network, axes = made(name)
    write_onnx(network, 2, axes, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [each.name for each in session.get_inputs()] == ["image"]
    assert [each.name for each in session.get_outputs()] == ["logits"]
    assert [isinstance(size, str) for size in session.get_inputs()[0].shape] == [True, False, *[True] * axes]
    for batch, sizes in ((1, (32, 48, 32)), (3, (48, 32, 64))):
        image = torch.rand(batch, 2, *sizes[:axes])
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), network(image), rtol=1e-4, atol=1e-4)


def test_a_network_of_one_size_is_refused(tmp_path):
    class OneSize(torch.nn.Module):
        def forward(self, x):
            return x.reshape(-1, 2, 64, 64) + 1

    with pytest.raises(UserError, match="OneSize: cannot be exported"):
        write_exported_program(OneSize(), 2, 2, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
