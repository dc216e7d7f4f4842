"""``nas-meta init`` and ``nas-meta data``: look at labelled data, and write a config for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo


def init(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="labelled CSV or JSON Lines; or three, to train, validate and test on"),
    ],
    to: Annotated[
        Optional[Path],
        typer.Option("--to", metavar="CONFIG", help="new file; by default the name of FILE with .yaml"),
    ] = None,
    text: Annotated[
        Optional[str], typer.Option("--text", metavar="NAME", help="column with the text; by default recognised")
    ] = None,
    label: Annotated[
        Optional[str], typer.Option("--label", metavar="NAME", help="column with the class; by default recognised")
    ] = None,
    group: Annotated[
        Optional[str],
        typer.Option(
            "--group", metavar="NAME", help="column that divides the examples into tasks of the same few classes"
        ),
    ] = None,
) -> None:
    """Look at your labelled data, print what was found, and write a config that searches on them."""
    from nas_meta.config.starting_config import refuse_existing, starting_config

    target = to or Path(files[0].name).with_suffix(".yaml")
    refuse_existing(target)
    config = starting_config(files, text, label, group)
    columns = f"columns   '{config.tasks['text']}' has the texts and '{config.tasks['label']}' the classes"
    echo("\n".join([*config.facts.lines(), columns]), hanging=10)
    config.save(target)
    echo(f"written to {target}; try: nas-meta search {target}", hanging=0)


def data(config: options.ConfigArgument, set_: options.SetOption = None, as_json: options.JsonOption = False) -> None:
    """Check the data of a config, without a search: what was found, what is left out, and how classes are split."""
    from nas_meta.config.data_check import check_data
    from nas_meta.config.resolved import read_config

    facts = check_data(read_config(config, set_ or []))
    if as_json:
        print_json(facts.as_dict())
    else:
        echo("\n".join(facts.lines()), hanging=10)
