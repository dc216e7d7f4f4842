"""``nas-meta report``: one HTML file that shows what a search found, or several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.opening import named_or_latest
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError


def report(
    runs: Annotated[
        Optional[list[Path]],
        typer.Argument(
            metavar="RUN", help="run directories, the first one compared with the others; by default the latest"
        ),
    ] = None,
    to: Annotated[
        Optional[Path],
        typer.Option("--to", metavar="FILE", help="HTML file to write; by default report.html in the only RUN"),
    ] = None,
    watts_per_core: Annotated[
        float, typer.Option("--watts-per-core", min=0, metavar="W", help="power of a core, for the estimate")
    ] = 10.0,
    watts_per_gpu: Annotated[
        float, typer.Option("--watts-per-gpu", min=0, metavar="W", help="power of a GPU, for the estimate")
    ] = 400.0,
    price_per_core_hour: Annotated[
        float, typer.Option("--price-per-core-hour", min=0, metavar="P", help="price of a core for an hour")
    ] = 0.05,
    price_per_gpu_hour: Annotated[
        float, typer.Option("--price-per-gpu-hour", min=0, metavar="P", help="price of a GPU for an hour")
    ] = 2.5,
    currency: Annotated[str, typer.Option("--currency", metavar="NAME", help="currency of the prices")] = "USD",
    as_json: options.JsonOption = False,
) -> None:
    """Write a report of a search as one HTML file: verdict, alternatives, front, choices, cost and reproduction."""
    runs = runs or [named_or_latest(None)]
    if len(runs) > 1 and to is None and not as_json:
        raise ConfigError(f"--to is missing for a report of {len(runs)} runs; expected the HTML file to write")
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.report.cost import Rates
    from nas_meta.outputs.report.facts import default_file
    from nas_meta.outputs.report.html import report_facts, write_report
    from nas_meta.outputs.snapshot import snapshot

    opened = [snapshot(load_run(run)) for run in runs]
    rates = Rates(watts_per_core, watts_per_gpu, price_per_core_hour, price_per_gpu_hour, currency)
    facts = report_facts(opened, rates)
    target = to if to is not None else None if as_json else default_file(opened[0])
    if target is not None:
        write_report(opened, facts, target)
    if as_json:
        print_json(facts)
    else:
        echo(f"written to {target}")
