"""The commands of ``nas-meta``: each parses its arguments, calls one function of the package and prints the result.

Only modules of this folder print and exit. Imports are inside the commands, so that ``--help`` does not load torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from nas_meta.cli import classify, ensemble, evaluate, export, options, plugins, pretrain
from nas_meta.cli.app import App, common_options
from nas_meta.cli.failures import DEBUG, report
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError, one_line

if TYPE_CHECKING:
    from nas_meta.journal.run import Run
    from nas_meta.outputs.report.live import LiveProgress

app = App(name="nas-meta", context_settings={"help_option_names": ["-h", "--help"]})
app.callback()(common_options)


@app.command()
def search(
    config: options.ConfigArgument,
    run_dir: options.RunDirOption = None,
    set_: options.SetOption = None,
    inline: options.InlineOption = False,
    resume: options.ResumeOption = False,
) -> None:
    """Run a search and print its best trials."""
    from nas_meta.config.resolved import read_config

    resolved = read_config(config, set_ or [])
    if resume and run_dir is None and resolved.sections.run_dir is None:
        raise ConfigError("--resume is given without a run directory; expected --run-dir DIR, or run_dir in the config")
    from nas_meta.config.model_pooling import pooling_difference

    if difference := pooling_difference(resolved):
        echo(f"warning: {difference}", err=True)

    def run_search(watch: LiveProgress) -> Run:
        from nas_meta.controller.launch import search as run

        return run(resolved, run_dir, inline, watch, resume)

    run_and_report(run_search)


@app.command()
def resume(
    run: options.RunArgument,
    set_: options.ResumeSetOption = None,
    inline: options.InlineOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Resume an interrupted search, or extend one with --set budget.trials=N."""

    def run_resume(watch: LiveProgress) -> Run:
        from nas_meta.controller.launch import resume as continued

        return continued(run, set_ or [], inline, watch, allow_plugins)

    run_and_report(run_resume)


def run_and_report(run_search: Callable[[LiveProgress], Run]) -> None:
    """Run a search with live progress, then print its results and the commands to try next.

    Args:
        run_search: Runs the search; called with the monitor of its progress.
    """
    from nas_meta.outputs.report.live import LiveProgress
    from nas_meta.outputs.report.terminal import console, result_table

    out = console()
    with LiveProgress(out) as progress:
        run = run_search(progress)
    directory = run.directory
    out.print(result_table(run))
    lines = [f"run        {directory}", f"picture    {directory / 'pareto.png'}", "next"]
    for command in ("best {}", "trials {}", "tensorboard {}", "export {} --to my-model"):
        lines.append(f"  nas-meta {command.format(directory)}")
    out.print("\n".join(lines), highlight=False, soft_wrap=True)  # commands are copied: no line breaks in them


@app.command()
def status(
    run: options.RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="keep updating until the search ends or Ctrl-C")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Show the progress of a search, from any terminal that sees its directory."""
    from nas_meta.journal.run import load_run
    from nas_meta.journal.status import read_status

    opened = load_run(run)
    current = read_status(opened)
    if as_json:
        board = current.leaderboard
        running = [t.as_dict() for t in board.running.values()]
        print_json({**current.as_dict(), "failures": current.failures, "finished": board.finished, "running": running})
        return
    from nas_meta.outputs.report.live import status_view, watch_status
    from nas_meta.outputs.report.terminal import console

    if watch:
        watch_status(lambda: read_status(opened))
    else:
        console().print(status_view(current), highlight=False)


@app.command()
def trials(
    run: options.RunArgument,
    as_json: options.JsonOption = False,
    sort: Annotated[
        Optional[str], typer.Option(metavar="METRIC", help="sort by METRIC, best first; by default by ID")
    ] = None,
    last: options.LastOption = None,
) -> None:
    """List the trials of a run, also while the search is running."""
    from nas_meta.journal.run import load_run

    opened = load_run(run)
    limit = last if last is not None else 0 if as_json else options.LISTED
    rows = opened.listed(limit or None, sort)
    if opened.damage:
        echo(f"nas-meta: {opened.directory} is damaged: {one_line(opened.damage)}", err=True)
    if as_json:
        print_json([t.as_dict() for t in rows])
        return
    from nas_meta.outputs.report.terminal import console, trials_table

    out = console()
    out.print(trials_table(rows, [o.metric for o in opened.objectives]))
    if opened.count > len(rows):
        which = "best" if sort else "last"
        out.print(f"the {which} {len(rows)} of {opened.count:,} trials; --last 0 shows all", highlight=False)


@app.command()
def best(run: options.RunArgument, as_json: options.JsonOption = False) -> None:
    """Show the best trial by the first objective, its architecture and its accuracy."""
    from nas_meta.journal.run import load_run

    opened = load_run(run)
    trial = opened.best
    if as_json:
        test = opened.test_of(trial)
        print_json(
            {
                **trial.as_dict(),
                "test_accuracy": test.get("test_accuracy"),
                "test_accuracy_ci95": test.get("test_accuracy_ci95"),
                "latency": (opened.report.get("latency") or {}).get("trials", {}).get(str(trial.id), {}).get("latency"),
                "steps_taken": opened.steps.taken,
                "steps_planned": opened.steps.planned,
                "verdict": opened.verdict,
            }
        )
        return
    from nas_meta.outputs.report.formatting import choices, trial_line
    from nas_meta.outputs.report.terminal import console, result_table

    out = console()
    objectives = [o.metric for o in opened.objectives]
    out.print("\n".join([trial_line(trial, objectives), *choices(trial)]), highlight=False)
    out.print(result_table(opened))


@app.command()
def trial(
    run: options.RunArgument,
    number: options.TrialArgument,
    rerun: options.RerunOption = False,
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Show one trial, or reproduce it from its journal row."""
    from nas_meta.journal.run import load_run

    opened = load_run(run, allow_plugins)
    row = opened.trial(number)
    metrics, changes = None, list[str]()
    if rerun:
        from nas_meta.outputs.changes import compared_with_journal
        from nas_meta.outputs.rerun import rerun as run_trial

        def warn(change: str) -> None:
            changes.append(change)
            echo(f"warning: {change}", err=True)

        metrics = run_trial(opened, row, lambda p: None if as_json else echo(step_line(p.step, p.values)), warn)
    if as_json:
        print_json(row.as_dict() | ({"rerun": metrics, "changes": changes} if rerun else {}))
        return
    from nas_meta.evaluation.metrics import ACCURACY
    from nas_meta.outputs.report.formatting import choices, trial_line
    from nas_meta.outputs.report.terminal import console

    out = console()
    objectives = [o.metric for o in opened.objectives]
    out.print("\n".join([trial_line(row, objectives), *choices(row)]), highlight=False)
    if metrics is not None:
        comparison = compared_with_journal(opened, row, metrics[ACCURACY], changes)
        out.print(f"rerun: {ACCURACY} {metrics[ACCURACY]} ({comparison})", highlight=False)


@app.command()
def logs(
    run: options.RunArgument,
    trial: options.LogArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="keep printing until it ends or Ctrl-C")] = False,
) -> None:
    """Print the log of a trial: its steps, its output, and the reason of a failure."""
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.monitors.logs import log_number, read_log

    for text in read_log(load_run(run), log_number(trial), follow):
        echo(text, nl=False)


def step_line(number: int, values: Any) -> str:
    """Return one line for a meta-training step.

    Args:
        number: Number of the step, from 1.
        values: Measured values by name, such as the loss.
    """
    return f"step {number}  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items())


@app.command()
def adapt(
    run: options.RunArgument,
    support: Annotated[Path, typer.Option(metavar="FILE", help="JSON Lines or CSV with a few examples of every class")],
    to: options.ToOption,
    query: options.QueryOption = None,
    text: Annotated[str, typer.Option(metavar="NAME", help="text field of both files")] = "text",
    label: Annotated[str, typer.Option(metavar="NAME", help="label field of both files")] = "label",
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Adapt architecture and weights to your own task, with a run of the strategy metanas."""
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.export.task_model import adapt as adapt_run

    model = adapt_run(load_run(run, allow_plugins), support, to, query, text, label)
    if as_json:
        print_json(vars(model))
        return
    echo(f"{len(model.labels)} classes, {model.params / 1e6:.1f} M parameters, written to {model.folder}")
    for name, value in model.architecture.items():
        echo(f"  {name}: {value}")
    if model.accuracy is not None:
        echo(f"{100 * model.accuracy:.1f} % of the {model.examples} examples in {query} are classified correctly")


@app.command()
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


@app.command()
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


@app.command()
def tensorboard(
    run: options.RunArgument,
    port: Annotated[int, typer.Option(metavar="PORT", help="port to listen on; 0 picks a free one")] = 6006,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="address to listen on")] = "127.0.0.1",
) -> None:
    """Open TensorBoard on a run, until Ctrl-C."""
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.monitors.tensorboard import FOLDER

    folder = load_run(run).directory / FOLDER
    command = [sys.executable, "-m", "tensorboard.main"]
    command += ["--logdir", str(folder), "--host", host, "--port", str(port)]
    raise SystemExit(subprocess.run(command).returncode)


app.command()(export.export)
app.command()(ensemble.ensemble)
app.command()(pretrain.pretrain)
app.command()(classify.classify)
app.command()(evaluate.evaluate)
plugins.add_to(app)


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
