"""The commands that look at a run: ``best``, ``trials``, ``trial``, ``status``, ``logs`` and ``tensorboard``."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.opening import opened as open_run
from nas_meta.cli.opening import run_and_id, trial_id
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError, nearest, one_line

TABLE, CSV, JSON = FORMATS = ("table", "csv", "json")


def best(
    run: options.RunArgument = None, wide: options.WideOption = False, as_json: options.JsonOption = False
) -> None:
    """Show the best trial by the first objective, its architecture and its accuracy."""
    opened = open_run(run)
    trial = opened.best
    if as_json:
        test, timing = opened.test_of(trial), opened.report.get("latency") or {}
        print_json(
            {
                **trial.as_dict(),
                "test_accuracy": test.get("test_accuracy"),
                "test_accuracy_ci95": test.get("test_accuracy_ci95"),
                "latency": timing.get("trials", {}).get(str(trial.id), {}).get("latency"),
                "latency_form": timing.get("form", "torch"),
                "steps_taken": opened.steps.taken,
                "steps_planned": opened.steps.planned,
                "final_training": opened.final_training.get(trial.id),
                "verdict": opened.verdict,
            }
        )
        return
    from nas_meta.outputs.report.formatting import choices, trial_line
    from nas_meta.outputs.report.terminal import console, result_table

    out = console()
    objectives = [o.metric for o in opened.objectives]
    out.print("\n".join([trial_line(trial, objectives), *choices(trial)]), highlight=False)
    out.print(result_table(opened, wide))


def trials(
    run: options.RunArgument = None,
    format_: options.FormatOption = None,
    as_json: options.JsonOption = False,
    wide: options.WideOption = False,
    sort: Annotated[
        Optional[str], typer.Option("--sort", metavar="METRIC", help="sort by METRIC, best first; by default by ID")
    ] = None,
    last: options.LastOption = None,
) -> None:
    """List the trials of a run, also while the search is running."""
    if format_ not in (None, *FORMATS):
        raise ConfigError(f"--format is '{format_}'; {nearest(format_, FORMATS)}")
    if as_json and format_ not in (None, JSON):
        raise ConfigError(f"--json is given with --format {format_}; expected one of the two")
    format_ = JSON if as_json else format_ or TABLE
    opened = open_run(run)
    limit = last if last is not None else options.LISTED if format_ == TABLE else 0
    rows = opened.listed(limit or None, sort)
    if opened.damage:
        echo(f"nas-meta: {opened.directory} is damaged: {one_line(opened.damage)}", err=True, hanging=0)
    if format_ == JSON:
        print_json([t.as_dict() for t in rows])
        return
    if format_ == CSV:
        from nas_meta.journal.flat_trials import as_csv

        echo(as_csv(rows), nl=False)
        return
    from nas_meta.outputs.report.terminal import console, trials_table

    out = console()
    out.print(trials_table(rows, [o.metric for o in opened.objectives], wide))
    if opened.count > len(rows):
        which = "best" if sort else "last"
        out.print(f"the {which} {len(rows)} of {opened.count:,} trials; --last 0 shows all", highlight=False)


def trial(
    run: options.RunBeforeArgument = None,
    number: options.TrialArgument = None,
    rerun: options.RerunOption = False,
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Show one trial, or reproduce it from its journal row."""
    directory, number = run_and_id(run, number)
    wanted = trial_id(number)
    opened = open_run(directory, allow_plugins)
    row = opened.trial(wanted)
    metrics, changes = None, list[str]()
    if rerun:
        from nas_meta.outputs.changes import compared_with_journal
        from nas_meta.outputs.rerun import rerun as run_trial

        def warn(change: str) -> None:
            changes.append(change)
            echo(f"warning: {change}", err=True, hanging=0)

        metrics = run_trial(opened, row, lambda p: None if as_json else echo(step_line(p.step, p.values)), warn)
    if as_json:
        print_json(row.as_dict() | ({"rerun": metrics, "changes": changes} if rerun else {}))
        return
    from nas_meta.evaluation.metrics import ACCURACY
    from nas_meta.outputs.report.formatting import choices, trial_line
    from nas_meta.outputs.report.terminal import console

    out = console()
    objectives = [o.metric for o in opened.objectives]
    further = [opened.final_sentences[row.id]] if row.id in opened.final_sentences else []
    out.print("\n".join([trial_line(row, objectives), *choices(row), *further]), highlight=False)
    if metrics is not None:
        comparison = compared_with_journal(opened, row, metrics[ACCURACY], changes)
        out.print(f"rerun: {ACCURACY} {metrics[ACCURACY]} ({comparison})", highlight=False)


def status(
    run: options.RunArgument = None,
    watch: Annotated[bool, typer.Option("--watch", help="keep updating until the search ends or Ctrl-C")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Show the progress of a search, from any terminal that sees its directory."""
    from nas_meta.journal.status import read_status

    opened = open_run(run)
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


def logs(
    run: options.RunBeforeArgument = None,
    trial: options.LogArgument = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="keep printing until it ends or Ctrl-C")] = False,
) -> None:
    """Print the log of a trial: its steps, its output, and the reason of a failure."""
    from nas_meta.outputs.monitors.logs import log_number, read_log

    directory, number = run_and_id(run, trial)
    wanted = log_number(number)
    for text in read_log(open_run(directory), wanted, follow):
        echo(text, nl=False)


def tensorboard(
    run: options.RunArgument = None,
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="port to listen on; 0 picks a free one")] = 6006,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="address to listen on")] = "127.0.0.1",
) -> None:
    """Open TensorBoard on a run, until Ctrl-C."""
    from nas_meta.outputs.monitors.tensorboard import FOLDER

    folder = open_run(run).directory / FOLDER
    command = [sys.executable, "-m", "tensorboard.main"]
    command += ["--logdir", str(folder), "--host", host, "--port", str(port)]
    raise SystemExit(subprocess.run(command).returncode)


def step_line(number: int, values: Any) -> str:
    """Return one line for a meta-training step.

    Args:
        number: Number of the step, from 1.
        values: Measured values by name, such as the loss.
    """
    return f"step {number}  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items())
