# SPDX-License-Identifier: Apache-2.0
"""The ``metassl`` command: thin, all logic lies in the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from metassl_monai import cli_options as options
from metassl_monai.cli_help import EXAMPLES, help_of_bundles


class Commands(TyperGroup):
    """The commands, each of which ends a user's mistake in one message."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ValueError as error:
            from metassl_monai.bundle.errors import tell_and_exit

            tell_and_exit(error)
            raise


app = typer.Typer(
    cls=Commands,
    help="Semi-supervised medical image segmentation, native to MONAI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def whole_command(version: options.Version = False, quiet: options.Quiet = False) -> None:
    """Semi-supervised medical image segmentation, native to MONAI."""


def _describe(words: Sequence[str]) -> str:
    from metassl_monai.apps.describe import describe_bundle_among

    return describe_bundle_among(words)


PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(epilog=EXAMPLES["demo"])
def demo(out: options.DemoFolder = Path("metassl_demo")) -> None:
    """Draw hearts, train with and without the unlabeled ones, segment, score: a minute or two on a CPU."""
    from metassl_monai.apps.demo import run_demo

    run_demo(out)


@app.command(epilog=EXAMPLES["prepare"])
def prepare(
    name: options.DataSetName,
    out: Annotated[Path, typer.Option(help="The datalist to write; for folder the new bundle.")],
    source: options.Source = None,
    labeled: options.Labeled = None,
    seed: options.Seed = "published",
    validation: options.Validation = None,
    train: options.Train = None,
    test: options.Test = None,
    fold: options.Fold = None,
    images: options.Images = None,
    labels: options.Labels = None,
    unlabeled: options.Unlabeled = None,
    suffix: options.Suffix = None,
    subject: options.Subject = None,
    label: options.Label = None,
    ignore: options.Ignore = None,
    setting: options.Setting = None,
    update: options.Update = None,
) -> None:
    """Write the datalist of a data set; or, of folders of your own scans, a bundle that trains on them."""
    from metassl_monai.apps.prepare import prepare_data

    release = {"source": source, "labeled": labeled, "train": train, "test": test, "fold": fold}
    folders: dict[str, Any] = {"images": images, "labels": labels, "unlabeled": unlabeled, "suffix": suffix}
    folders |= {"subject": subject, "label": label, "ignore": ignore, "set": setting, "update": update}
    prepare_data(name, out, seed, validation, release, folders)


@app.command(epilog=EXAMPLES["check"])
def check(datalist: options.Datalist, dataset_dir: options.DatasetDir, json: options.Json = False) -> None:
    """Read every file of a datalist and report all problems at once."""
    from metassl_monai.apps.prepare import report_problems

    report_problems(datalist, dataset_dir, json)


@app.command(cls=help_of_bundles(_describe), epilog=EXAMPLES["train"], context_settings=PASS_ON)
def train(
    context: typer.Context,
    bundle: options.Bundle,
    method: Annotated[str | None, typer.Option(help="The method's overlay; the bundle's default if left out.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="The method's own losses instead of MetaSSL.")] = False,
    overlay: options.Overlays = None,
    minutes: options.Minutes = None,
) -> None:
    """Train a bundle. Every further --id VALUE goes to MONAI as it is.

    --resume goes on from the last epoch's end; --overwrite lets go of a training that the folder holds.
    """
    from metassl_monai.apps.train import train_bundle

    names = [*([method] if method else []), *(["plain"] if plain else []), *(overlay or [])]
    train_bundle(bundle, names, context.args, minutes)


@app.command(epilog=EXAMPLES["infer"], context_settings=PASS_ON)
def infer(
    context: typer.Context,
    bundle: options.Bundle,
    images: options.Scans = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the predictions of --images.")] = None,
    checkpoint: options.Checkpoint = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write class probabilities as well.")] = False,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Write the entropy, in nats, as well.")] = False,
    device: options.Device = None,
    overlap: Annotated[str | None, typer.Option(help="Of sliding windows, from 0 to below 1.")] = None,
    also: options.Also = None,
    overlay: options.Overlays = None,
) -> None:
    """Segment images with a trained bundle. Without --images every further --id VALUE goes to MONAI as it is."""
    from metassl_monai.apps.infer import infer as run

    maps = {"probabilities": probabilities, "uncertainty": uncertainty}
    run(bundle, overlay or (), images or (), context.args, out, checkpoint, device, overlap, also or (), **maps)


@app.command(epilog=EXAMPLES["suggest"])
def suggest(
    bundle: options.Bundle,
    out: Annotated[Path | None, typer.Option(help="A CSV file for all cases; a picture goes beside it.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of cases to print and to draw.")] = 10,
    checkpoint: options.Checkpoint = None,
    device: options.Device = None,
    overlay: options.Overlays = None,
    json: options.Json = False,
) -> None:
    """Name the unlabeled cases to annotate next: those that the network is least sure of."""
    from metassl_monai.apps.suggest import suggest as run

    run(bundle, out, count, overlay or (), checkpoint, device, json)


@app.command(epilog=EXAMPLES["evaluate"])
def evaluate(
    datalist: options.Datalist,
    dataset_dir: options.DatasetDir,
    predictions: Annotated[Path, typer.Option(help="Folder of the predicted label maps.")],
    out: Annotated[Path, typer.Option(help="Folder for cases.csv and metrics.json.")],
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    raw: options.Raw = False,
    json: options.Json = False,
) -> None:
    """Score predicted label maps against the annotations, per case and structure."""
    from metassl_monai.apps.evaluate import evaluate_predictions, show_scores

    show_scores(evaluate_predictions(datalist, dataset_dir, split, predictions, out, raw), out, json)


@app.command(epilog=EXAMPLES["compare"])
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A metrics.json, its folder, or a run's output folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other, of the same cases.")],
    metric: Annotated[list[str] | None, typer.Option(help="Repeatable; dice and hd95_mm if left out.")] = None,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the numbers.")] = None,
    json: options.Json = False,
) -> None:
    """Tell which of two evaluations is higher, by how much, and whether that is more than chance."""
    from metassl_monai.apps.compare import compare_evaluations, show_comparison

    show_comparison(compare_evaluations(a, b, metric or ("dice", "hd95_mm"), out), json)


@app.command(epilog=EXAMPLES["report"])
def report(folders: options.Runs, out: options.Page = None) -> None:
    """Write one HTML file: what was decided, trained and reached, what the network sees, and how to go on."""
    from metassl_monai.apps.page import write_report

    write_report(folders, out)


@app.command(epilog=EXAMPLES["experiment"])
def experiment(
    file: Annotated[Path, typer.Argument(help="The experiment, such as bundles/*/experiments/*.json.")],
    dataset_dir: options.DatasetDir,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")],
    results: Annotated[Path | None, typer.Option(help="Folder of the results; OUT/results if left out.")] = None,
    stored: Annotated[Path, typer.Option(help="Folder of results to compare with.")] = Path("docs/results"),
    row: Annotated[list[str] | None, typer.Option(help="A row; repeatable, all if left out.")] = None,
    labeled: Annotated[list[int] | None, typer.Option(help="A number of labeled subjects; as --row.")] = None,
    subset: Annotated[list[str] | None, typer.Option(help="A labeled subset; as --row.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed of the training; as --row.")] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Number of cases to draw as each row segments them.")] = 0,
) -> None:
    """Run a grid of methods, presets, labeled subsets and seeds, and make tables of it; goes on where it stopped."""
    from metassl_monai.experiments.run import run_experiment

    chosen = (row or (), labeled or (), subset or (), seed or ())
    run_experiment(file, dataset_dir, out, results, stored, *chosen, pictures=pictures)


@app.command(epilog=EXAMPLES["bundle"])
def bundle(
    name: Annotated[str | None, typer.Argument(help="Name of a bundle; all are listed if left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to copy it into.")] = Path(),
) -> None:
    """Copy a bundle out of the package, or list the bundles."""
    from metassl_monai.bundle.locate import bundle_names, copy_bundle

    typer.echo("\n".join(bundle_names()) if name is None else f"copied to {copy_bundle(name, out)}")


@app.command(epilog=EXAMPLES["export"])
def export(
    bundle: options.Bundle,
    out: Annotated[Path, typer.Option(help="The file; for huggingface the new folder.")],
    format: Annotated[str, typer.Option(help="onnx, pt2 (torch.export) or huggingface.")] = "onnx",
    checkpoint: options.Checkpoint = None,
    overlay: options.Overlays = None,
) -> None:
    """Write a trained network as ONNX or an exported program, or its bundle as a repository of Hugging Face."""
    from metassl_monai.apps.export import export_bundle

    export_bundle(bundle, format, out, checkpoint, overlay or ())


@app.command(epilog=EXAMPLES["audit"])
def audit(bundle: options.BundleToAudit, json: options.Json = False) -> None:
    """Tell what a bundle would run, without running it; exit status 1 where something is not known to be harmless."""
    from metassl_monai.apps.audit import print_audit

    print_audit(bundle, json)


def main() -> None:
    """Run the command."""
    app()
