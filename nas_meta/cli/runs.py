"""``nas-meta runs``: list the runs below a folder, or compare several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.errors import RunError


def runs(
    paths: Annotated[
        Optional[list[Path]],
        typer.Argument(metavar="FOLDER|RUN", help="folder with runs, by default runs/; or runs to compare"),
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """List the runs below a folder, the newest first, or compare several runs side by side."""
    from nas_meta.journal.run_list import RUNS, START, list_runs
    from nas_meta.outputs.report.terminal import console

    if paths and len(paths) > 1:
        from nas_meta.journal.run import load_run
        from nas_meta.outputs.report.run_tables import comparison, comparison_table

        facts = comparison([load_run(path) for path in paths])
        if as_json:
            print_json(facts)
        else:
            out = console()
            out.print(comparison_table(facts, out.is_terminal))
        return
    from nas_meta.outputs.report.run_tables import runs_table

    folder = paths[0] if paths else RUNS
    if paths and not folder.is_dir():
        raise RunError(f"{folder} is not a folder; expected one with runs, or several runs to compare")
    found = list_runs(folder)
    if as_json:
        print_json([summary.as_dict() for summary in found])
    elif found:
        console().print(runs_table(found))
    else:
        echo(f"there is no run below {folder}; {START}", hanging=0)
