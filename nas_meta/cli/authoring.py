"""The commands for authors of plugins: write a space, a strategy or a learner to start from, and check one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nas_meta.cli.app import App
from nas_meta.cli.options import JsonOption
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo

if TYPE_CHECKING:
    from nas_meta.testing.checks import Result
    from nas_meta.testing.comparison import Comparison

NewName = Annotated[str, typer.Argument(metavar="NAME", help="name of the class to write, such as MyPlugin")]
CheckedName = Annotated[
    str, typer.Argument(metavar="PATH_OR_NAME", help="PATH:CLASS, or the name of an installed plugin")
]
SearchesOption = Annotated[
    int,
    typer.Option(
        "--searches", metavar="N", min=0, help="number of searches to compare with random search; 0 compares nothing"
    ),
]


def add_to(app: App, panel: str) -> None:
    """Add the commands for authors to the command line.

    Args:
        app: The command line.
        panel: Heading in the help under which they are listed.
    """
    groups = {
        "space": ("search-space", "TinyEncoder", "tiny_encoder.py", space_new, space_check),
        "strategy": ("strategy", "HillClimb", "hill_climb.py", strategy_new, strategy_check),
        "learner": ("learner", "CosineMeans", "cosine_means.py", learner_new, learner_check),
    }
    for kind, (word, name, file, new, check) in groups.items():
        group = App(help=f"Write and check {word} plugins.", epilog=f"Example: nas-meta {kind} new {name}")
        group.add("Commands", f"nas-meta {kind} new {name}", new, "new")
        group.add("Commands", f"nas-meta {kind} check {file}:{name}", check, "check")
        app.add_typer(group, name=kind, rich_help_panel=panel)


def space_new(name: NewName) -> None:
    """Write a working search-space plugin of about 20 lines to a new file in the current folder."""
    write("space", name)


def strategy_new(name: NewName) -> None:
    """Write a working strategy plugin and a config that uses it to new files in the current folder."""
    write("strategy", name)


def learner_new(name: NewName) -> None:
    """Write a working learner plugin and a config that uses it to new files in the current folder."""
    write("learner", name)


def space_check(
    name: CheckedName,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="seed of the random architectures to check")] = 0,
) -> None:
    """Check a search space: sample architectures, build, run and pickle them."""
    from nas_meta.testing import check_space

    problems, checked = check_space(name, seed)
    for line in checked:
        echo(f"ok    {line}", hanging=6)
    for line in problems:
        echo(f"wrong {line}", hanging=6)
    if problems:
        raise SystemExit(1)


def strategy_check(
    name: CheckedName,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="seed of the searches to check")] = 0,
    searches: SearchesOption = 5,
    as_json: JsonOption = False,
) -> None:
    """Check a strategy on search spaces whose best architecture is known, and compare it with random search."""
    from nas_meta.testing import check_strategy
    from nas_meta.testing.comparison import compare_with_random

    results = check_strategy(name, seed)
    sound = all(result.problem is None for result in results)
    # The proposals of a job are those for its supernet, which landscapes do not have.
    comparable = sound and results[0].skipped is None and searches > 0
    report(results, compare_with_random(name, searches) if comparable else (), as_json)


def learner_check(
    name: CheckedName,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="seed of the model and the episodes to check")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Check a learner with a tiny model on texts that are easy to separate."""
    from nas_meta.testing import check_learner

    report(check_learner(name, seed), (), as_json)


def write(kind: str, name: str) -> None:
    """Write the starting point of a plugin, and print how to check it and search with it.

    Args:
        kind: ``space``, ``strategy`` or ``learner``.
        name: Name of the plugin.

    Raises:
        ConfigError: The name cannot become the name of a class, or a file exists already.
    """
    from nas_meta.core.scaffold.writing import write_plugin

    written = write_plugin(kind, name)
    echo(f"written to {written.file}; try: nas-meta {kind} check {written.file}:{written.class_name}", hanging=0)
    if written.config is not None:
        echo(f"written to {written.config}; try: nas-meta search {written.config}", hanging=0)


def report(results: Sequence[Result], comparisons: Sequence[Comparison], as_json: bool) -> None:
    """Print the results of checks, with what to do about each problem.

    Args:
        results: The results.
        comparisons: How a strategy compares with random search.
        as_json: Whether to print JSON.

    Raises:
        SystemExit: With 1 if there is a problem.
    """
    if as_json:
        print_json({"checks": [vars(r) for r in results], "comparisons": [vars(c) for c in comparisons]})
    else:
        for result in results:
            if result.problem is not None:
                echo(f"wrong {result.check}: {result.problem}\n      to mend it, {result.remedy}", hanging=6)
            else:
                skipped = f"skip  {result.check}: {result.skipped}"
                echo(f"ok    {result.check}" if result.skipped is None else skipped, hanging=6)
        if comparisons:
            width = max(len(comparison.measure) for comparison in comparisons)
            echo(f"\n{'1 is the optimum':<{width}}  strategy  random search")
        for row in comparisons:
            echo(f"{row.measure:<{width}}  {row.strategy_mean:8.2f}  {row.random_mean:13.2f}")
    if any(result.problem is not None for result in results):
        raise SystemExit(1)
