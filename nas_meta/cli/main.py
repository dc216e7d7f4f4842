"""The command line: parse, call, print. The only module that prints and exits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from nas_meta.cli import plugins, pretrain
from nas_meta.cli.plugins import JsonOption, print_json
from nas_meta.errors import ConfigError, NasMetaError, one_line

app = typer.Typer(
    name="nas-meta",
    help="Neural architecture search for transformers that learn a new task from one to five examples per class.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

LISTED = 100  # trials, where nobody says how many
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="a run directory")]
AllowOption = Annotated[bool, typer.Option("--allow-plugins", help="run the plugin files and hooks that the run names")]


@app.command()
def search(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML config")],
    run_dir: Annotated[Optional[Path], typer.Option(help="a new directory for the run")] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="override a key")
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="run trials in this process, without Ray")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in --run-dir, if it holds one")] = False,
) -> None:
    """Run a search."""
    from nas_meta.config.resolved import read_config

    resolved = read_config(config, set_ or [])
    if resume and run_dir is None and resolved.sections.run_dir is None:
        raise ConfigError("--resume needs the directory of the run; expected --run-dir DIR, or run_dir in the config")
    from nas_meta.config.model_pooling import pooling_difference
    from nas_meta.controller.launch import search as run_search

    if difference := pooling_difference(resolved):
        typer.echo(f"warning: {one_line(difference)}", err=True)
    watched(lambda watch: run_search(resolved, run_dir, inline, watch, resume))


@app.command()
def resume(
    run: RunArgument,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="of budget, resources, watching"),
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="run trials in this process, without Ray")] = False,
    allow_plugins: AllowOption = False,
) -> None:
    """Go on with a search that was interrupted, or whose budget has grown."""
    from nas_meta.controller.launch import resume as run_resume

    watched(lambda watch: run_resume(run, set_ or [], inline, watch, allow_plugins))


def watched(run_search: Any) -> None:
    """Shows a search while it runs, and what came out of it."""
    from nas_meta.outputs.report.terminal import LiveProgress, console, result_table

    out = console()
    with LiveProgress(out) as progress:
        run = run_search(progress)
    where = run.directory
    out.print(result_table(run))
    out.print(f"run        {where}", highlight=False)
    out.print(f"picture    {where / 'pareto.png'}", highlight=False)
    out.print("next", highlight=False)
    for command in (
        f"best {where}",
        f"trials {where}",
        f"tensorboard {where}",
        f"export {where} --to my-model",
    ):
        out.print(f"  nas-meta {command}", highlight=False)


@app.command()
def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="until the search ends, or Ctrl-C")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how far a search is, from any terminal that sees its directory."""
    from nas_meta.journal.run import load_run
    from nas_meta.journal.status import read_status

    opened = load_run(run)
    now = read_status(opened)
    if as_json:
        running = [t.as_dict() for t in now.leaderboard.running.values()]
        print_json(
            {**now.as_dict(), "failures": now.failures, "finished": now.leaderboard.finished, "running": running}
        )
        return
    from nas_meta.outputs.report.terminal import console, status_view, watch_status

    if watch:
        watch_status(lambda: read_status(opened))
    else:
        console().print(status_view(now), highlight=False)


@app.command()
def trials(
    run: RunArgument,
    as_json: JsonOption = False,
    sort: Annotated[Optional[str], typer.Option(metavar="METRIC", help="sort by a metric, best first")] = None,
    last: Annotated[
        Optional[int], typer.Option(min=0, help=f"only so many; 0 is all. By default {LISTED}, with --json all")
    ] = None,
) -> None:
    """Show the trials of a run, also while it runs."""
    from nas_meta.journal.run import load_run

    opened = load_run(run)
    limit = last if last is not None else 0 if as_json else LISTED
    rows = opened.listed(limit or None, sort)
    if opened.damage:
        sys.stderr.write(f"nas-meta: {opened.directory} is damaged: {one_line(opened.damage)}\n")
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
def best(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the best trial, its architecture and accuracy."""
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
    run: RunArgument,
    number: Annotated[int, typer.Argument(metavar="ID")],
    rerun: Annotated[
        bool, typer.Option("--rerun", help="run it again in this process; errors come with their traceback")
    ] = False,
    as_json: JsonOption = False,
    allow_plugins: AllowOption = False,
) -> None:
    """Show one trial, or run it again from its journal row."""
    from nas_meta.journal.run import load_run

    opened = load_run(run, allow_plugins)
    row = opened.trial(number)
    again = None
    if rerun:
        from nas_meta.outputs.rerun import rerun as run_again

        again = run_again(opened, row, lambda step: None if as_json else typer.echo(step_line(step.step, step.values)))
    if as_json:
        print_json(row.as_dict() | ({"rerun": again} if rerun else {}))
        return
    from nas_meta.evaluation.metrics import ACCURACY
    from nas_meta.outputs.report.formatting import choices, trial_line
    from nas_meta.outputs.report.terminal import console

    out = console()
    objectives = [o.metric for o in opened.objectives]
    out.print("\n".join([trial_line(row, objectives), *choices(row)]), highlight=False)
    if again is not None:
        before = row.metrics.get(ACCURACY)
        same = "the same" if before == again[ACCURACY] else f"the journal has {before}"
        out.print(f"again: {ACCURACY} {again[ACCURACY]} ({same})", highlight=False)


@app.command()
def logs(
    run: RunArgument,
    trial: Annotated[str, typer.Argument(metavar="ID", help="a trial, or supernet")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="until it ends, or Ctrl-C")] = False,
) -> None:
    """Print the log of a trial: its steps, what it printed, and why it failed."""
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.monitors.logs import numbered, read_log

    for text in read_log(load_run(run), numbered(trial), follow):
        sys.stdout.write(text)
        sys.stdout.flush()


def step_line(number: int, values: Any) -> str:
    """What a meta-training step measured."""
    return f"step {number}  " + "  ".join(f"{name} {value:.4f}" for name, value in values.items())


@app.command()
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option(help="a new folder")],
    trial: Annotated[Optional[int], typer.Option(metavar="ID", help="by default the best")] = None,
    allow_plugins: AllowOption = False,
) -> None:
    """Write the trained model as a Hugging Face folder."""
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.export.folder import export as run_export

    folder = run_export(load_run(run, allow_plugins), to, trial)
    typer.echo(f"written to {folder}: its README.md says how it is loaded")


@app.command()
def adapt(
    run: RunArgument,
    support: Annotated[Path, typer.Option(metavar="FILE", help="JSON Lines or CSV: some examples of every class")],
    to: Annotated[Path, typer.Option(help="folder to write")],
    query: Annotated[Optional[Path], typer.Option(metavar="FILE", help="more of them, to measure on")] = None,
    text: Annotated[str, typer.Option(help="name of the text field")] = "text",
    label: Annotated[str, typer.Option(help="name of the label field")] = "label",
    as_json: JsonOption = False,
    allow_plugins: AllowOption = False,
) -> None:
    """Give a task of your own a model with its own architecture, from a run of metanas."""
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.export.task_model import adapt as adapt_run

    made = adapt_run(load_run(run, allow_plugins), support, to, query, text, label)
    if as_json:
        print_json(vars(made))
        return
    typer.echo(f"{len(made.labels)} classes, {made.params / 1e6:.1f} M parameters, written to {made.folder}")
    for name, value in made.architecture.items():
        typer.echo(f"  {name}: {value}")
    if made.accuracy is not None:
        typer.echo(f"{100 * made.accuracy:.1f} % of {made.examples} examples of {query} are classified correctly")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="a Hugging Face encoder folder")],
    config: Annotated[Path, typer.Option(help="a YAML config: its tasks and its learner are used")],
    split: Annotated[str, typer.Option(help="meta-train, meta-validation or meta-test")] = "meta-test",
    episodes: Annotated[int, typer.Option(min=2, help="episodes to score")] = 600,
    shots: Annotated[Optional[int], typer.Option(min=1, help="by default the config's")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model on episodes."""
    from nas_meta.config.resolved import read_config

    resolved = read_config(config)
    from nas_meta.evaluation.metrics import METRICS
    from nas_meta.outputs.export.exported_model import evaluate_folder

    row = evaluate_folder(model, resolved, split, episodes, shots)
    if as_json:
        print_json(row)
    else:
        typer.echo(
            f"{METRICS['accuracy'].format(row)} on {row['episodes']} {row['split']} episodes "
            f"({row['ways']}-way {row['shots']}-shot), {METRICS['params'].format(row)} parameters"
        )


@app.command()
def rank(
    source: Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="a YAML config, or a run directory")],
    scores: Annotated[
        Optional[str], typer.Option(metavar="NAME,...", help="the first one ranks; by default all")
    ] = None,
    architectures: Annotated[int, typer.Option(min=1, help="random ones of a config; of a run its own")] = 20,
    set_: Annotated[Optional[list[str]], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="of a config")] = None,
    as_json: JsonOption = False,
    allow_plugins: AllowOption = False,
) -> None:
    """Rank architectures by zero-cost scores, those of a run with Kendall's τ against their trained accuracy."""
    from nas_meta.outputs.proxy_ranking import rank_random, rank_run, scores_named

    names = scores_named(scores)
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
    path: Annotated[Optional[Path], typer.Argument(metavar="CONFIG")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON Schema of a config")] = False,
    set_: Annotated[Optional[list[str]], typer.Option("--set", metavar="SECTION.KEY=VALUE")] = None,
) -> None:
    """Print the resolved config, or the JSON Schema for editors."""
    from nas_meta.config.json_schema import schema as json_schema
    from nas_meta.config.resolved import read_config

    if schema:
        print_json(json_schema())
    elif path is None:
        raise ConfigError("name a CONFIG, or ask for --schema")
    else:
        typer.echo(read_config(path, set_ or []).as_yaml(), nl=False)


@app.command()
def tensorboard(
    run: RunArgument, port: Annotated[int, typer.Option(help="0 takes a free one")] = 6006,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
) -> None:  # fmt: skip
    """Open TensorBoard on a run."""
    from nas_meta.journal.run import load_run
    from nas_meta.outputs.monitors.tensorboard import FOLDER

    folder = load_run(run).directory / FOLDER
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(folder),
        "--host",
        host,
        "--port",
        str(port),
    ]
    raise SystemExit(subprocess.run(command).returncode)


app.command()(pretrain.pretrain)
plugins.add_to(app)


def main() -> None:
    """The entry point: turns every expected failure into one sentence and an exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except NasMetaError as error:
        sys.stderr.write(f"nas-meta: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:  # a disk that is full, a directory that may not be written
        sys.stderr.write(f"nas-meta: {error.filename or 'a file'}: {error.strerror or error}\n")
        raise SystemExit(1) from None
