# SPDX-License-Identifier: Apache-2.0
"""Settings of the documentation site: ``sphinx-build -W docs build/site``."""

from __future__ import annotations

import inspect
from typing import Any

from typer.main import get_group

from metassl_monai import __version__
from metassl_monai.cli import app as command_line

project = "metassl_monai"
author = project_copyright = "The metassl_monai contributors"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "results/conclusions.md"]

myst_heading_anchors = 4
nb_execution_mode = "auto"  # notebooks are stored without outputs
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # log lines of libraries

default_role = "literal"
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"metassl_monai {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]


def _rows(parameters: list[Any]) -> list[str]:
    return [f"| {' '.join(f'`{name}`' for name in names)} | {text} |" for names, text in parameters]


def _parameter(parameter: Any) -> tuple[list[str], str]:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    text = (parameter.help or "").replace("|", "\\|")
    return names, f"{text} Required." if parameter.required else text


def command_reference() -> str:
    """Every command of ``metassl`` with its arguments and options, as Markdown."""
    parts = []
    for name, command in get_group(command_line).commands.items():
        parameters = [_parameter(parameter) for parameter in command.params if getattr(parameter, "help", None)]
        table = ["| argument or option | |", "|---|---|", *_rows(parameters)]
        examples = "\n".join(["```sh", *command.epilog.split("\n\n")[1:], "```"])
        parts += [f"## metassl {name}", inspect.cleandoc(command.help or ""), examples, "\n".join(table)]
    return "\n\n".join(parts) + "\n"


def _append_commands(app: Any, page: str, source: list[str]) -> None:
    if page == "command_line":
        source[0] += "\n" + command_reference()


def setup(app: Any) -> None:
    """Complete the page of the command line when it is read."""
    app.connect("source-read", _append_commands)
