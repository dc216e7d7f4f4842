"""``nas-meta ensemble``: average several trials of a run, if that is better than the best of them."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.opening import opened as open_run
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError


def ensemble(
    to: options.ToOption,
    run: options.RunArgument = None,
    size: Annotated[int, typer.Option("--size", metavar="N", help="largest number of distinct trials")] = 5,
    max_latency: Annotated[
        Optional[float],
        typer.Option(
            "--max-latency", metavar="SECONDS", help="largest sum of their latencies; by default there is no limit"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="write the ensemble even if it is not better than the best trial")
    ] = False,
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Select trials that are better together than the best alone, and write them as one classifier."""
    if size < 2:
        raise ConfigError(f"--size is {size}; expected at least 2 trials")
    if max_latency is not None and not 0 < max_latency < float("inf"):
        raise ConfigError(f"--max-latency is {max_latency:g}; expected a positive number of seconds")
    from nas_meta.core.files import refuse_occupied
    from nas_meta.outputs.ensemble.folder import write_ensemble
    from nas_meta.outputs.ensemble.judging import judge
    from nas_meta.outputs.ensemble.scoring import score

    refuse_occupied(to)
    opened = open_run(run, allow_plugins)
    candidates = score(opened, lambda line: echo(f"scoring {line}", err=True))
    judged = judge(candidates, size, max_latency, opened.config.sections.seed)
    written = write_ensemble(opened, candidates, judged, to) if judged.is_better or force else None
    if as_json:
        print_json({**judged.as_dict(), "written": None if written is None else str(written)})
        return
    from nas_meta.outputs.report.ensemble import ensemble_table
    from nas_meta.outputs.report.terminal import console

    console().print(ensemble_table(judged))
    echo(judged.verdict, hanging=0)
    if written is None:
        echo("nothing is written; --force writes the ensemble nevertheless")
    else:
        echo(f"written to {written}: its README.md shows how to load it", hanging=0)
