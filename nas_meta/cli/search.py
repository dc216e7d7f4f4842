"""``nas-meta search`` and ``resume``: run a search with live progress, and print its results."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nas_meta.cli import options
from nas_meta.cli.opening import named_or_latest
from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError

if TYPE_CHECKING:
    from nas_meta.journal.run import Run
    from nas_meta.outputs.report.live import LiveProgress


def search(
    config: options.ConfigArgument,
    run_dir: options.RunDirOption = None,
    set_: options.SetOption = None,
    trials: options.TrialsOption = None,
    workers: options.WorkersOption = None,
    seed: options.SeedOption = None,
    inline: options.InlineOption = False,
    resume: options.ResumeOption = False,
) -> None:
    """Run a search and print its best trials."""
    from nas_meta.config.resolved import read_config

    resolved = read_config(config, [*(set_ or []), *shortcuts(trials, workers, seed)])
    if resume and run_dir is None and resolved.sections.run_dir is None:
        raise ConfigError("--resume is given without a run directory; expected --run-dir DIR, or run_dir in the config")
    from nas_meta.config.model_pooling import pooling_difference

    if difference := pooling_difference(resolved):
        echo(f"warning: {difference}", err=True, hanging=0)

    def run_search(watch: LiveProgress) -> Run:
        from nas_meta.controller.launch import search as run

        return run(resolved, run_dir, inline, watch, resume)

    run_and_report(run_search)


def resume(
    run: options.RunArgument = None,
    set_: options.ResumeSetOption = None,
    trials: options.TrialsOption = None,
    workers: options.WorkersOption = None,
    inline: options.InlineOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Resume an interrupted search, or extend one with --trials N."""
    directory = named_or_latest(run)

    def run_resume(watch: LiveProgress) -> Run:
        from nas_meta.controller.launch import resume as continued

        return continued(directory, [*(set_ or []), *shortcuts(trials, workers)], inline, watch, allow_plugins)

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
    files = {"picture": "pareto.png", "report": "report.html"}
    shown = [f"{name:10} {directory / file}" for name, file in files.items() if (directory / file).is_file()]
    lines = [f"run        {directory}", *shown, "next"]
    for command in ("best {}", "trials {}", "tensorboard {}", "export {} --to my-model"):
        lines.append(f"  nas-meta {command.format(directory)}")
    out.print("\n".join(lines), highlight=False, soft_wrap=True)  # commands are copied: no line breaks in them


def shortcuts(trials: int | None, workers: int | None, seed: int | None = None) -> list[str]:
    """Return the overrides that the options for the most frequent keys stand for.

    Args:
        trials: Number of trials; None keeps the config's, as with the others.
        workers: Trials that run at the same time.
        seed: Seed of all random numbers.

    Returns:
        Overrides as ``--set`` takes them; they come after those and win.
    """
    given = {"budget.trials": trials, "resources.workers": workers, "seed": seed}
    return [f"{key}={value}" for key, value in given.items() if value is not None]
