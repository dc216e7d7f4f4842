"""``nas-meta classify``: label texts with a model and a few labelled examples."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.fitted import fitted_classifier
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo, terminal_width
from nas_meta.errors import ConfigError

NONE_OF_THESE = "none of these"
MANY = 1000  # texts from which progress is shown


def classify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="exported folder, run directory, or saved classifier")],
    texts: Annotated[Optional[list[str]], typer.Argument(metavar="TEXT", help="texts to classify")] = None,
    support: options.SupportOption = None,
    input_: Annotated[
        Optional[Path], typer.Option("--input", metavar="FILE", help="CSV, JSON Lines or .txt with texts to classify")
    ] = None,
    to: Annotated[
        Optional[Path], typer.Option("--to", metavar="FILE", help="CSV or JSON Lines file to write; default: print")
    ] = None,
    save: Annotated[
        Optional[Path], typer.Option("--save", metavar="DIR", help="save the fitted classifier in this new folder")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="let the texts refine the classes (transductive; learner protonet)")
    ] = False,
    refuse: Annotated[
        Optional[float],
        typer.Option(
            "--refuse",
            metavar="SHARE",
            help="answer 'none of these' where a text fits no class; SHARE is the largest share of texts that do fit "
            "and may be refused, such as 0.05",
        ),
    ] = None,
    class_names: Annotated[
        Optional[bool],
        typer.Option(
            "--class-names/--no-class-names",
            help="whether the name of each class is one more example; by default as the model was trained",
        ),
    ] = None,
    trial: Annotated[
        Optional[int], typer.Option("--trial", metavar="ID", help="trial of a run; by default the best")
    ] = None,
    text: Annotated[str, typer.Option("--text", metavar="NAME", help="text field of the files")] = "text",
    label: Annotated[str, typer.Option("--label", metavar="NAME", help="label field of the support file")] = "label",
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Classify texts with an exported model, from a few labelled examples of every class."""
    given = bool(texts) + (input_ is not None)
    if given > 1 or (given == 0 and save is None):  # a classifier may be saved without classifying anything
        raise ConfigError("expected either TEXT arguments or --input FILE")
    from nas_meta.outputs.classifier.files import read_texts, write_predictions

    asked = list(texts) if texts else read_texts(input_, text) if input_ is not None else []
    classifier = fitted_classifier(model, support, (text, label), trial, allow_plugins, refuse, class_names)
    if save is not None:
        classifier.save(save)
        echo(f"classifier saved in {save}", err=True, hanging=0)

    def show(done: int) -> None:
        if len(asked) >= MANY:
            echo(f"{done:,} of {len(asked):,} texts", err=True)

    names, probabilities = classifier.classify(asked, together, show)
    shares = [round(float(p), 4) for p in probabilities.max(1, initial=0.0)]
    rows = [
        {"text": given, "label": name, "probability": share}
        for given, name, share in zip(asked, names.tolist(), shares, strict=True)
    ]
    if to is not None:
        write_predictions(to, rows)
    if as_json:
        print_json(rows)
    elif to is not None:
        echo(f"{len(rows):,} predictions written to {to}")
    else:
        show_rows(rows)


def show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print predictions: in columns in a terminal, with tabs between the fields otherwise.

    Args:
        rows: Rows with ``text``, ``label`` (None for none of the classes) and ``probability``.
    """
    labels = [NONE_OF_THESE if row["label"] is None else row["label"] for row in rows]
    columns = terminal_width(sys.stdout)
    width = min(max(map(len, labels), default=0), columns // 3)
    for label, row in zip(labels, rows, strict=True):
        share, text = f"{row['probability']:.2f}", row["text"][:200]
        if columns:
            echo(f"{label:<{width}}  {share}  {text}", hanging=width + 8)
        else:
            echo(f"{label}\t{share}\t{text}")
