"""``nas-meta explain``: which choices matter and why an architecture won, or why a text gets its class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.fitted import fitted_classifier
from nas_meta.cli.opening import named_or_latest
from nas_meta.cli.plugins import print_json
from nas_meta.errors import ConfigError


def explain(
    model: Annotated[
        Optional[Path],
        typer.Argument(
            metavar="RUN|MODEL",
            help="run directory, by default the latest under runs/; with TEXT also an exported folder or classifier",
        ),
    ] = None,
    text: Annotated[Optional[str], typer.Argument(metavar="TEXT", help="text whose class to explain")] = None,
    support: options.SupportOption = None,
    trial: Annotated[
        Optional[int], typer.Option("--trial", metavar="ID", help="with TEXT: trial of a run; by default the best")
    ] = None,
    text_field: Annotated[str, typer.Option("--text", metavar="NAME", help="text field of the support file")] = "text",
    label: Annotated[str, typer.Option("--label", metavar="NAME", help="label field of the support file")] = "label",
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Explain a run: which choices matter, and why the best architecture won. With TEXT, explain a prediction."""
    if text is not None and model is not None:
        explain_text(model, text, support, trial, (text_field, label), as_json, allow_plugins)
        return
    if support is not None or trial is not None:
        raise ConfigError(
            f"TEXT is missing beside --{'support' if support is not None else 'trial'}; expected a text to classify, "
            "or a run directory alone"
        )
    explain_run(named_or_latest(model), as_json)


def explain_run(directory: Path, as_json: bool) -> None:
    """Print which choices of a run matter, and the way from a truncation to its winner.

    Args:
        directory: The run directory.
        as_json: Whether to print JSON.

    Raises:
        ConfigError: The folder is not a run directory.
        RunError: The run is damaged.
    """
    from nas_meta.journal.database import Journal
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.explain.importances import as_dict, importances
    from nas_meta.outputs.explain.path import path_to_winner
    from nas_meta.outputs.explain.results import results_of
    from nas_meta.outputs.snapshot import snapshot

    if directory.is_dir() and not Journal.exists(directory):
        raise ConfigError(
            f"{directory} is not a run directory; expected one, or TEXT to explain the prediction of a model"
        )
    run = snapshot(load_run(directory))
    results = results_of(run)
    found, path = importances(results, run.objectives), path_to_winner(run, results)
    if as_json:
        print_json({"importances": [as_dict(row) for row in found], "path": path.as_dict() if path else None})
        return
    from nas_meta.outputs.report.explanations import importance_table, path_table, rivals_table
    from nas_meta.outputs.report.terminal import console

    out = console()
    for result in found:
        if result.choices:
            out.print(importance_table(result))
    for sentence in dict.fromkeys(result.sentence for result in found if not result.choices):
        out.print(sentence)
    if path is not None:
        out.print(path_table(path))
        if path.rivals:
            out.print(rivals_table(path))


def explain_text(
    model: Path, text: str, support: Path | None, trial: int | None, fields: tuple[str, str], as_json: bool,
    allow_plugins: bool,
) -> None:  # fmt: skip
    """Classify a text and print why it gets its class.

    Args:
        model: Exported folder, run directory, or saved classifier.
        text: The text.
        support: File with labelled examples; None for a saved classifier.
        trial: Trial of a run; None for the best.
        fields: Names of the text field and the label field of the file.
        as_json: Whether to print JSON.
        allow_plugins: Whether the code of plugin files that the model names may be run.

    Raises:
        ConfigError: There are no classes, or the model cannot be loaded.
        DataError: The file or the text cannot be used.
    """
    explanation = fitted_classifier(model, support, fields, trial, allow_plugins).explain(text)
    if as_json:
        print_json(explanation.as_dict())
        return
    from nas_meta.outputs.report.explanations import prediction_lines
    from nas_meta.outputs.report.terminal import console

    out = console()
    for part in prediction_lines(explanation):
        out.print(part, highlight=False)
