# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, and what importing the package costs."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import metassl_monai
from metassl_monai.files import write_json

PACKAGE = Path(metassl_monai.__file__).parent
NAME = "metassl_monai"

INTERNAL: dict[str, set[str]] = {
    "losses": {"options"},
    "networks": {"options"},
    "transforms": set(),
    "methods": {"losses", "networks", "transforms", "ignore", "options"},
    "engines": {"methods", "finite"},
    "handlers": {"losses", "metrics", "report", "files", "finite", "ignore", "network_record", "progress"},
    "data": {"transforms", "files", "ignore", "late_imports", "network_record", "progress"},
    "planning": {"data", "files", "ignore", "progress", "recipes"},
    "metrics": {"ignore"},
    "report": {"metrics", "files"},
    "recipes": {"files"},
    "bundle": {"data", "engines", "files", "finite", "handlers", "late_imports", "methods", "network_record"},
    "files": set(),
    "network_record": {"files"},
    "finite": set(),
    "late_imports": set(),
    "progress": set(),
    "ignore": set(),
    "options": set(),
    "cli_options": {"__version__"},
    "cli_help": set(),
}
INTERNAL["integrations"] = {"bundle", "data", "files", "methods", "report", "__version__"}
INTERNAL["apps"] = {"bundle", "planning", "losses", "data", "files", "handlers", "integrations", "metrics", "report"}
INTERNAL["apps"] |= {"progress"}
INTERNAL["experiments"] = INTERNAL["apps"] | {"apps", "__version__"}
"""Rooms of the package that a room may import beside itself; ``cli`` may see everything."""

OUTSIDE: dict[str, set[str]] = {
    "losses": {"torch"},
    "networks": {"torch", "monai"},
    "transforms": {"torch", "numpy", "monai"},
    "methods": {"torch", "monai", "typing_extensions"},
}
"""All that a room may import from other packages, the standard library aside."""

TRAINING = {"ignite", "mlflow", "monai.engines", "monai.handlers", "monai.losses", "monai.optimizers", "torch.optim"}
"""What a room that knows nothing of training does not import."""


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> list[str]:
    """Names that a ``from`` import may bring in, relative ones resolved; submodules included."""
    if node.level == 0:
        base = node.module or ""
    else:
        parents = module.split(".")[: None if is_package else -1]
        parents = parents[: len(parents) - node.level + 1]
        base = ".".join([*parents, *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def imports(source: str, module: str, is_package: bool = False) -> Iterator[tuple[str, bool]]:
    """Every imported name, and whether it is imported when the module is."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    inside = {id(child) for function in functions for child in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = absolute(node, module, is_package)
        else:
            continue
        for name in names:
            yield name, id(node) not in inside


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files(room: str) -> list[Path]:
    single = PACKAGE / f"{room}.py"
    return [single] if single.exists() else sorted((PACKAGE / room).rglob("*.py"))


def imports_of(room: str) -> Iterator[tuple[Path, str, bool]]:
    for file in files(room):
        for name, at_import in imports(file.read_text(encoding="utf-8"), module_of(file), file.name == "__init__.py"):
            yield file, name, at_import


def room_of(name: str) -> str | None:
    """The room of the package that a name belongs to, None where it belongs to none."""
    parts = name.split(".")
    return parts[1] if parts[0] == NAME and len(parts) > 1 else None


def test_reading_of_imports_finds_every_form() -> None:
    source = """
import torch.nn as nn
from . import base
from .base import Method
from ..losses.regions import Region
from .. import engines
if TYPE_CHECKING:
    from metassl_monai import handlers
def late():
    import mlflow
    with x:
        from metassl_monai.apps.demo import run_demo
"""
    found = dict(imports(source, "metassl_monai.methods.new"))
    assert {name for name, at_import in found.items() if at_import} == {
        "torch.nn",
        "metassl_monai.methods",
        "metassl_monai.methods.base",
        "metassl_monai.methods.base.Method",
        "metassl_monai.losses.regions",
        "metassl_monai.losses.regions.Region",
        "metassl_monai",
        "metassl_monai.engines",
        "metassl_monai.handlers",
    }
    assert {name for name, at_import in found.items() if not at_import} == {
        "mlflow",
        "metassl_monai.apps.demo",
        "metassl_monai.apps.demo.run_demo",
    }
    package = dict(imports("from .base import Method", "metassl_monai.methods", is_package=True))
    assert set(package) == {"metassl_monai.methods.base", "metassl_monai.methods.base.Method"}


def test_every_room_has_its_rule() -> None:
    rooms = {entry.stem for entry in PACKAGE.iterdir() if entry.suffix == ".py" or any(entry.glob("*.py"))}
    assert rooms - {"__init__"} <= set(INTERNAL) | {"cli"}


@pytest.mark.parametrize("room", INTERNAL)
def test_room_imports_only_the_rooms_it_may(room: str) -> None:
    allowed = INTERNAL[room] | {room}
    wrong = [
        f"{file.name} imports {name}"
        for file, name, _ in imports_of(room)
        if room_of(name) is not None and room_of(name) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("room", OUTSIDE)
def test_room_imports_only_the_packages_it_may(room: str) -> None:
    allowed = OUTSIDE[room] | {NAME} | sys.stdlib_module_names
    wrong = [f"{file.name} imports {name}" for file, name, _ in imports_of(room) if name.split(".")[0] not in allowed]
    assert wrong == []


@pytest.mark.parametrize("room", ["data", "metrics", "report", "files", "transforms"])
def test_room_knows_nothing_of_training(room: str) -> None:
    wrong = [
        f"{file.name} imports {name}"
        for file, name, _ in imports_of(room)
        if any(f"{name}.".startswith(f"{training}.") for training in TRAINING)
    ]
    assert wrong == []


def test_package_itself_imports_nothing() -> None:
    names = {name for name, _ in imports((PACKAGE / "__init__.py").read_text(encoding="utf-8"), NAME, True)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.skipif(not (PACKAGE / "cli.py").exists(), reason="the command is not written yet")
def test_command_imports_the_package_inside_its_functions_alone() -> None:
    found = [(name, at_import) for _, name, at_import in imports_of("cli") if room_of(name) is not None]
    assert found
    assert {room_of(name) for name, at_import in found if at_import} == {"cli_options", "cli_help"}
    assert {room_of(name) for name, _ in found} <= {
        "cli_options",
        "cli_help",
        "apps",
        "bundle",
        "experiments",
        "report",
        "data",
    }


@pytest.mark.skipif(not (PACKAGE / "cli.py").exists(), reason="the command is not written yet")
def test_command_holds_no_logic() -> None:
    tree = ast.parse((PACKAGE / "cli.py").read_text(encoding="utf-8"))
    logic = (
        ast.If,
        ast.For,
        ast.While,
        ast.With,
        ast.Match,
        ast.ListComp,
        ast.SetComp,
        ast.DictComp,
        ast.GeneratorExp,
        ast.Lambda,
    )
    found = [f"line {node.lineno}: {type(node).__name__}" for node in ast.walk(tree) if isinstance(node, logic)]
    assert found == []
    # the one that ends a mistake in any command in one message
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)] == ["Commands"]
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        assert len(function.body) <= 8, f"{function.name} is long for a command that only calls apps"


def run_python(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def loaded_by(module: str) -> set[str]:
    """Top-level packages in a fresh interpreter after an import."""
    result = run_python(f"import sys, {module}; print(*sorted(name.split('.')[0] for name in sys.modules))")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_import_of_the_package_is_light() -> None:
    loaded = loaded_by(NAME)
    assert NAME in loaded
    assert loaded & {"torch", "monai", "mlflow", "itk", "numpy", "ignite", "matplotlib"} == set()


@pytest.mark.skipif(not (PACKAGE / "cli.py").exists(), reason="the command is not written yet")
def test_import_of_the_command_is_light() -> None:
    assert loaded_by(f"{NAME}.cli") & {"torch", "monai", "mlflow", "itk", "ignite"} == set()


HEAVY = {"torch", "monai", "mlflow", "itk", "ignite", "skimage", "sklearn", "pandas", "nibabel"}
"""What takes seconds to import, MONAI with all that it imports itself, or is of no use where no image is read."""

COMMAND = """
import sys
from metassl_monai.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def loaded_by_command(*arguments: object) -> set[str]:
    """Top-level packages in a fresh interpreter after a whole command."""
    code = f"import sys\nsys.argv = {['metassl', *map(str, arguments)]!r}{COMMAND}"
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


COMMANDS = (
    "demo",
    "prepare",
    "check",
    "train",
    "infer",
    "suggest",
    "evaluate",
    "compare",
    "report",
    "experiment",
    "export",
)


@pytest.mark.parametrize("command", ["", *COMMANDS, "bundle"])
def test_help_imports_nothing_heavy(command: str) -> None:
    assert loaded_by_command(*command.split(), "--help") & (HEAVY | {"numpy", "scipy", "matplotlib"}) == set()


def test_commands_that_read_no_image_import_nothing_heavy(tmp_path: Path, write_la: Callable[..., Path]) -> None:
    write_la(tmp_path / "la", ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU"], shape=(8, 8, 8))
    prepare = ("prepare", "la", "--source", tmp_path / "la", "--labeled", 1, "--out", tmp_path / "datalist.json")
    rows = [{"case": name, "subject": name, "structure": "mean", "dice": 0.5} for name in ("a", "b", "c")]
    for name in ("one", "two"):
        write_json(tmp_path / name / "metrics.json", {"cases": rows})
    compare = ("compare", tmp_path / "one", tmp_path / "two", "--metric", "dice")
    copy = ("bundle", "phantom_segmentation", "--out", tmp_path)
    for arguments in (prepare, compare, copy, ("bundle",)):
        assert loaded_by_command(*arguments) & HEAVY == set(), arguments[0]
    assert len(json.loads((tmp_path / "datalist.json").read_text())["labeled"]) == 1
    assert (tmp_path / "phantom_segmentation" / "configs" / "train.json").is_file()


@pytest.mark.parametrize("room", ["data", "bundle"])
def test_names_that_are_imported_late_are_the_objects_of_their_modules(room: str) -> None:
    """A function must not give way to a module of its name, nor a wrong name to silence."""
    package = importlib.import_module(f"{NAME}.{room}")
    for name in package.__all__:
        assert not isinstance(getattr(package, name), types.ModuleType), name
        assert getattr(package, name) is getattr(package, name)
    modules = {file.stem for file in (PACKAGE / room).glob("*.py")}
    assert modules & set(package.__all__) == set()
    with pytest.raises(AttributeError, match=f"module '{NAME}.{room}' has no attribute 'nothing'"):
        _ = package.nothing


def test_import_of_the_losses_needs_torch_alone() -> None:
    assert loaded_by(f"{NAME}.losses") & {"monai", "mlflow", "itk", "ignite", "matplotlib"} == set()


WITHOUT_MLFLOW = """
import sys

sys.modules["mlflow"] = None  # as where it is not installed

import metassl_monai.losses, metassl_monai.methods, metassl_monai.networks
import metassl_monai.engines, metassl_monai.handlers, metassl_monai.data
from ignite.engine import Engine

handler = metassl_monai.handlers.SafeMLFlowHandler(tracking_uri="sqlite:///never.db")
assert handler.failed
engine = Engine(lambda engine, batch: None)
handler.attach(engine)
engine.run([1, 2], max_epochs=2)
assert engine.state.iteration == 4
assert [name for name in sys.modules if name.split(".")[0] == "mlflow"] == ["mlflow"]
print("trained")
"""


def test_training_modules_work_where_mlflow_is_not_installed(tmp_path: Path) -> None:
    result = run_python(WITHOUT_MLFLOW, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "trained"
    assert result.stderr.count("MLflow tracking is off from here on") == 1
    assert "pip install mlflow" in result.stderr
