"""The commands of ``nas-meta``: each parses its arguments, calls one function of the package and prints the result.

Only modules of this folder print and exit. Imports are inside the commands, so that ``--help`` does not load torch.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Optional

import typer

from nas_meta.cli import (
    authoring,
    classify,
    data,
    ensemble,
    evaluate,
    explain,
    export,
    look,
    options,
    plugins,
    pretrain,
    runs,
)
from nas_meta.cli import report as report_command
from nas_meta.cli import search as search_command
from nas_meta.cli.app import App, common_options
from nas_meta.cli.failures import DEBUG, report
from nas_meta.cli.opening import opened as open_run
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError

SEARCH, LOOK, SHIP, EXTEND = "Search", "Look at runs", "Use what was found", "Plugins and configs"

app = App(name="nas-meta", context_settings={"help_option_names": ["-h", "--help"]})
app.callback()(common_options)


def adapt(
    support: Annotated[
        Path, typer.Option("--support", metavar="FILE", help="JSON Lines or CSV with a few examples of every class")
    ],
    to: options.ToOption,
    run: options.RunArgument = None,
    query: options.QueryOption = None,
    text: Annotated[str, typer.Option("--text", metavar="NAME", help="text field of both files")] = "text",
    label: Annotated[str, typer.Option("--label", metavar="NAME", help="label field of both files")] = "label",
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Adapt architecture and weights to your own task, with a run of the strategy metanas."""
    from nas_meta.outputs.export.task_model import adapt as adapt_run

    model = adapt_run(open_run(run, allow_plugins), support, to, query, text, label)
    if as_json:
        print_json(vars(model))
        return
    echo(f"{len(model.labels)} classes, {model.params / 1e6:.1f} M parameters, written to {model.folder}")
    for name, value in model.architecture.items():
        echo(f"  {name}: {value}")
    if model.accuracy is not None:
        echo(f"{100 * model.accuracy:.1f} % of the {model.examples} examples in {query} are classified correctly")


def rank(
    source: options.SourceArgument,
    scores: options.ScoresOption = None,
    architectures: options.ArchitecturesOption = 20,
    set_: options.SetOption = None,
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Rank architectures by zero-cost proxies; for a run, compare the ranking with trained accuracy (Kendall's τ)."""
    from nas_meta.outputs.proxy_ranking import parse_proxies, rank_random, rank_run

    names = parse_proxies(scores)
    if source.is_dir():
        from nas_meta.journal.run import load_run

        ranking = rank_run(load_run(source, allow_plugins), names)
    else:
        from nas_meta.config.resolved import read_config

        ranking = rank_random(read_config(source, set_ or []), names, architectures)
    if as_json:
        print_json(ranking.as_dict())
        return
    from nas_meta.outputs.report.terminal import console, ranking_table

    console().print(ranking_table(ranking))


def config(
    path: Annotated[Optional[Path], typer.Argument(metavar="CONFIG", help="YAML config file")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON Schema of config files instead")] = False,
    set_: options.SetOption = None,
) -> None:
    """Print a config with all defaults, or the JSON Schema for editors."""
    from nas_meta.config.json_schema import schema as json_schema
    from nas_meta.config.resolved import read_config

    if schema:
        print_json(json_schema())
    elif path is None:
        raise ConfigError("CONFIG is missing; expected a config file, or --schema")
    else:
        echo(read_config(path, set_ or []).as_yaml(), nl=False)


app.add(SEARCH, "nas-meta init intents.csv --to intents.yaml", data.init)
app.add(SEARCH, "nas-meta data intents.yaml", data.data)
app.add(SEARCH, "nas-meta search intents.yaml --trials 24 --workers 2", search_command.search)
app.add(SEARCH, "nas-meta resume runs/intents --trials 48", search_command.resume)
app.add(SEARCH, "nas-meta rank intents.yaml --architectures 50", rank)
app.add(SEARCH, "nas-meta pretrain pretrain.yaml --to my-encoder", pretrain.pretrain)
app.add(LOOK, "nas-meta runs", runs.runs)
app.add(LOOK, "nas-meta status runs/intents --watch", look.status)
app.add(LOOK, "nas-meta best runs/intents", look.best)
app.add(LOOK, "nas-meta trials runs/intents --sort accuracy --last 10", look.trials)
app.add(LOOK, "nas-meta trial runs/intents 3", look.trial)
app.add(LOOK, "nas-meta logs runs/intents 3 --follow", look.logs)
app.add(LOOK, "nas-meta report runs/intents", report_command.report)
app.add(LOOK, "nas-meta explain runs/intents", explain.explain)
app.add(LOOK, "nas-meta tensorboard runs/intents", look.tensorboard)
app.add(SHIP, "nas-meta export runs/intents --to my-model", export.export)
app.add(SHIP, "nas-meta ensemble runs/intents --to my-ensemble", ensemble.ensemble)
app.add(SHIP, "nas-meta evaluate my-model --config intents.yaml", evaluate.evaluate)
app.add(SHIP, "nas-meta classify my-model --support examples.csv 'where is my parcel?'", classify.classify)
app.add(SHIP, "nas-meta adapt runs/metanas --support examples.csv --to my-model", adapt)
plugins.add_to(app, EXTEND)
authoring.add_to(app, EXTEND)
app.add(EXTEND, "nas-meta config intents.yaml", config)


def main() -> None:
    """Run the command line, the entry point of ``nas-meta``.

    Every expected failure becomes one sentence on standard error and an exit code.

    Raises:
        SystemExit: With 1 for failures, 2 for wrong usage, 130 for Ctrl-C.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # --debug may stand anywhere, because it is added to a command that has failed.
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    try:
        app(arguments, prog_name="nas-meta")
    except Exception as error:
        if len(arguments) < len(sys.argv) - 1:
            traceback.print_exc()
        raise SystemExit(report(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
