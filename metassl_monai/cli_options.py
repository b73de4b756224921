# SPDX-License-Identifier: Apache-2.0
"""Arguments and options of the ``metassl`` command, where they are many or shared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from metassl_monai import __version__


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"metassl {__version__}")
        raise typer.Exit


def _be_quiet(asked: bool) -> None:
    if asked:  # in the environment, where the processes of trainings find it as well
        os.environ |= {"METASSL_QUIET": "1", "TQDM_DISABLE": "1"}


Also = Annotated[list[str] | None, typer.Option(help="A further format: seg.nrrd or dicom-seg; repeatable.")]
Bundle = Annotated[str, typer.Argument(help="Name of a bundle that comes with the package, or a path to one.")]
BundleToAudit = Annotated[Path, typer.Argument(help="The folder of a bundle, or a zip archive of one.")]
Checkpoint = Annotated[Path | None, typer.Option(help="The weights; BUNDLE/models/model.pt if left out.")]
DataSetName = Annotated[
    str, typer.Argument(help="A data set (abdomenct1k, acdc, brats2019, digestpath, la, pancreas_ct), or folder.")
]
Datalist = Annotated[Path, typer.Option(help="The datalist file.")]
DatasetDir = Annotated[Path, typer.Option("--dataset-dir", "--dataset_dir", help="Folder of its images.")]
DemoFolder = Annotated[Path, typer.Option(help="A new folder for everything the demo makes.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda:0, ...; a GPU where there is one if left out.")]
Fold = Annotated[
    int | None,
    typer.Option(
        help="The fold to test on. la: 0 to 4, the published split if left out; pancreas_ct: 0 to 3, 0 if left out."
    ),
]
Ignore = Annotated[int | None, typer.Option(help="folder: the label value of voxels nobody annotated.")]
Images = Annotated[Path | None, typer.Option(help="folder: the images, in a folder or listed in a dataset.json.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")]
Label = Annotated[list[str] | None, typer.Option(help="folder: 1=aorta, or a file of label names.")]
Labeled = Annotated[int | None, typer.Option(help="Number of labeled subjects.")]
Labels = Annotated[
    Path | None, typer.Option(help="folder: the labels of some; left out where they lie beside the images.")
]
Minutes = Annotated[
    float | None, typer.Option(help="Train for about as long; replaces --iterations. A few steps are timed first.")
]
Overlays = Annotated[list[str] | None, typer.Option("--overlay", help="A further config of the bundle; repeatable.")]
Page = Annotated[
    Path | None, typer.Option(help="The HTML file; report.html in the folder, of several in the current one.")
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        callback=_be_quiet,
        is_eager=True,
        help="Print results and mistakes alone; give it before the command.",
    ),
]
Raw = Annotated[
    bool, typer.Option("--raw", help="Predictions hold the annotations' own values, as infer --images writes them.")
]
Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Bundles, or output folders of trainings; more are compared.")
]
Scans = Annotated[
    list[Path] | None, typer.Option(help="Folders and files to segment, of any format; several may follow.")
]
Seed = Annotated[str, typer.Option(help="'published' takes the papers' subjects in their order; a number draws them.")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="folder: a decision, NAME=VALUE.")]
Source = Annotated[Path | None, typer.Option(help="Folder of the official release.")]
Subject = Annotated[
    str | None, typer.Option(help="folder: a regular expression whose first group is the subject of a name.")
]
Suffix = Annotated[str | None, typer.Option(help="folder: what names of labels end with, such as _roi.")]
Test = Annotated[int | None, typer.Option(help="Number of test cases; abdomenct1k: 11, digestpath: 20 if left out.")]
Train = Annotated[int | None, typer.Option(help="abdomenct1k: number of training cases; 30 if left out.")]
Unlabeled = Annotated[list[Path] | None, typer.Option(help="folder: further images without labels.")]
Update = Annotated[
    bool | None,
    typer.Option("--update", help="folder: add what is new to the bundle; its validation and plan stay."),
]
Validation = Annotated[
    int | None,
    typer.Option(help="Number of validation cases, where no list was published; la, pancreas_ct: 0 if left out."),
]
Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Tell the version and end.")
]
