# SPDX-License-Identifier: Apache-2.0
"""What a bundle would run is read and told; what is planted in one is flagged, and none of it runs."""

from __future__ import annotations

import json
import pickle
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from metassl_monai.apps.audit import audit_bundle
from metassl_monai.bundle.locate import bundle_names, bundle_path
from metassl_monai.cli import app

RUN = "$open('/tmp/ran', 'w')"


def flagged(bundle):
    return [finding for finding in audit_bundle(bundle) if finding.flags]


@pytest.fixture
def bundle(tmp_path):
    """A copy of a sound bundle."""
    return Path(shutil.copytree(bundle_path("phantom_segmentation"), tmp_path / "bundle"))


def plant(bundle, **ids):
    file = bundle / "configs" / "train.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **ids}))


@pytest.mark.parametrize("name", bundle_names())
def test_the_bundles_of_the_package_pass_and_all_is_listed(name):
    findings = audit_bundle(bundle_path(name))
    assert [finding for finding in findings if finding.flags] == []
    targets = {finding.text for finding in findings if finding.kind == "target"}
    assert {"Compose", "metassl_monai.handlers.TrainingCheckpoint", "DataLoader"} <= targets
    expressions = {finding.text for finding in findings if finding.kind == "expression"}
    assert {"$check_command_line()", "$import torch", "(sys.stdout,)"} <= expressions


EVIL = {
    "$os.system('id')": "os.system is not",
    "$__import__('os').system('id')": "uses the name __import__",
    "$import subprocess": "imports subprocess",
    "$from os import system": "imports os.system",
    "$import torch.hub": "imports torch.hub",
    "$from .configs import x": "imports",
    "$eval('1')": "uses the name eval",
    "$exec('1')": "uses the name exec",
    "$open('x')": "uses the name open",
    "$compile('1', '', 'eval')": "uses the name compile",
    "$getattr(torch, 'hub')": "uses the name getattr",
    "$setattr(torch, 'x', 1)": "uses the name setattr",
    "$setattr(Image, 'MAX_IMAGE_PIXELS', eval('1'))": "uses the name eval",
    "$globals()['os']": "uses the name globals",
    "$().__class__.__base__.__subclasses__()": "reaches for __subclasses__",
    "$'{0.__class__}'.format(1)": "holds the text",
    "$torch.hub.load('x', 'y')": "torch.hub.load is not",
    "$torch.load('x')": "torch.load is not",
    "$torch.nn.functional.torch.serialization.pickle.loads(b'')": "is not on the list",
    "$monai.data.utils.os.system('id')": "monai.data.utils.os.system is not",
    "$monai.bundle.run('x')": "monai.bundle.run is not",
    "$metassl_monai.bundle.locate.run_command(['id'])": "run_command is not",
    "$copy.copy(os)": "hands over os",
    "$(lambda f: f)(torch)": "hands over torch",
    "$[os.system][0]('id')": "only known when it runs",
    "$@network.__globals__": "reaches for __globals__",
    "$@network.unlink()": "calls the method unlink",
    "$os.environ.update(a=1)": "os.environ.update is not",
    "$os.path.join('..', 'x')": "leaves the bundle by ..",
    "$torch.device('/etc/passwd')": "outside of the bundle",
    "$f'{1}' 'x' +": "no expression",
    "$import os; os.system('id')": "no expression",
    "$" + "(" * 5000 + ")" * 5000: "no expression",
}


@pytest.mark.parametrize("expression", EVIL, ids=lambda text: text[:40])
def test_each_planted_expression_is_flagged(expression, bundle):
    plant(bundle, planted=expression)
    found = flagged(bundle)
    assert [(finding.kind, finding.text) for finding in found] == [("expression", expression)]
    assert EVIL[expression] in " ".join(found[0].flags)
    assert found[0].where == "configs/train.json: planted"


@pytest.mark.parametrize(
    "expression",
    [
        "$@iterations % 2",
        "$@output_dir + '/models'",
        "$[x for x in range(3) if x > 1]",
        "$lambda step: min(1.0, step / @ramp_iterations)",
        "$f'{@output_dir}/x'",
        "$torch.nn.Sequential(@network, torch.nn.Softmax(dim=1)).to(@device)",
        "$'a' if os.environ.get('RANK') else None",
        "$Path(@output_dir) / 'x'",
    ],
)
def test_usual_expressions_are_known(expression, bundle):
    plant(bundle, planted=[expression, "$from pathlib import Path"])
    assert flagged(bundle) == []


@pytest.mark.parametrize(
    "target",
    ["os.system", "builtins.eval", "subprocess.Popen", "monai.bundle.run", "torch.hub.load", "NoSuchTransform", "$@x"],
)
def test_each_planted_target_is_flagged(target, bundle):
    plant(bundle, planted={"_target_": target, "x": 1})
    (found,) = flagged(bundle)
    assert found.text == target
    assert found.where == "configs/train.json: planted::_target_"


@pytest.mark.parametrize(
    "place", ["../x", "/etc/passwd", "~/x", "C:\\x", "https://host/x", "s3://x", "%../other.json::a"]
)
def test_each_planted_place_is_flagged(place, bundle):
    plant(bundle, planted=place)
    (found,) = flagged(bundle)
    assert (found.kind, found.text) == ("place", place)


def test_debugger_and_log_settings_are_flagged(bundle):
    plant(bundle, planted={"_target_": "Compose", "_mode_": "debug"})
    settings = bundle / "configs" / "logging.conf"
    settings.write_text(settings.read_text().replace("(sys.stdout,)", "(__import__('os').system('id'),)"))
    assert [finding.text for finding in flagged(bundle)] == ["(__import__('os').system('id'),)", "debug"]


def test_yaml_is_read_and_an_avalanche_of_aliases_ends(bundle):
    lines = ["a0: &a0 ['$eval(1)']", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))]
    (bundle / "configs" / "more.yaml").write_text("\n".join(lines))
    (bundle / "configs" / "bad.yaml").write_text("!!python/object/apply:os.system ['id']")
    assert sorted(finding.text for finding in flagged(bundle)) == ["$eval(1)", "bad.yaml"]


class Evil:
    def __reduce__(self):
        return (eval, ("open('/tmp/ran', 'w')",))


def test_weights_are_told_apart_without_loading_them(bundle):
    models = bundle / "models"
    models.mkdir()
    network = torch.nn.Linear(2, 2)
    torch.save({"model": network.state_dict(), "epoch": 3}, models / "model.pt")
    assert flagged(bundle) == []
    torch.save({"model": Evil()}, models / "evil.pt")
    torch.save(network, models / "whole.pt")
    torch.save({"model": Evil()}, models / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(network), models / "model.ts")
    (models / "plain.pkl").write_bytes(pickle.dumps(Evil()))
    (models / "picture.png").write_bytes(pickle.dumps(Evil()))
    (models / "cut.pt").write_bytes((models / "model.pt").read_bytes()[:400])
    (bundle / "setup.py").write_text("")
    told = {finding.text: finding.flags[0] for finding in flagged(bundle)}
    assert set(told) == {
        *("evil.pt", "whole.pt", "legacy.pt", "model.ts", "plain.pkl", "picture.png", "cut.pt", "setup.py"),
    }
    assert "its pickle calls" in told["evil.pt"]
    assert "eval" in told["evil.pt"]
    assert "torch.nn.modules.linear.Linear" in told["whole.pt"]
    assert told["model.ts"] == "is TorchScript, a program"
    assert "eval" in told["plain.pkl"]
    assert "is code" in told["setup.py"]


def test_links_and_archives_do_not_lead_out(bundle, tmp_path):
    (tmp_path / "secret.json").write_text('{"a": "$eval(1)"}')
    (bundle / "configs" / "link.json").symlink_to(tmp_path / "secret.json")
    (found,) = flagged(bundle)
    assert found.flags == ("is a link that leads out of the bundle",)
    archive = tmp_path / "bundle.zip"
    link = zipfile.ZipInfo("configs/link.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("configs/train.json", '{"a": "$eval(1)"}')
        target.writestr("../out.json", "{}")
        target.writestr("/out.json", "{}")
        target.writestr("C:\\out.json", "{}")
        target.writestr(link, "/etc/passwd")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert sorted(finding.text for finding in flagged(archive)) == [
        *("$eval(1)", "../out.json", "/out.json", "C:\\out.json", "configs/link.json"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_command_says_what_is_flagged_and_its_exit_status(bundle, tmp_path):
    sound = CliRunner().invoke(app, ["audit", str(bundle)])
    assert sound.exit_code == 0
    assert "known   target     'Compose'" in sound.output
    assert "0 of them flagged" in sound.output
    plant(bundle, planted=RUN)
    result = CliRunner().invoke(app, ["audit", str(bundle)])
    assert result.exit_code == 1
    assert "FLAGGED expression" in result.output
    assert "uses the name open" in result.output
    assert not Path("/tmp/ran").exists()
    told = CliRunner().invoke(app, ["audit", str(bundle), "--json"])
    assert told.exit_code == 1
    assert any("uses the name open" in flag for row in json.loads(told.stdout) for flag in row["flags"])
    missing = CliRunner().invoke(app, ["audit", str(tmp_path / "nowhere")])
    assert missing.exit_code == 1
    assert "is no folder and no zip archive" in missing.output
