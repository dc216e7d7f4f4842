"""Arguments and options that several commands share, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

LISTED = 100  # trials that `nas-meta trials` shows by default
SET = "SECTION.KEY=VALUE"

RunArgument = Annotated[
    Optional[Path], typer.Argument(metavar="RUN", help="run directory of a search; by default the latest under runs/")
]
ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML config file")]
# Before an ID. Arguments are filled from the left, so a single one is the ID; see nas_meta.cli.opening.run_and_id.
RunBeforeArgument = Annotated[
    Optional[str], typer.Argument(metavar="RUN", help="run directory of a search; by default the latest under runs/")
]
TrialArgument = Annotated[Optional[str], typer.Argument(metavar="ID", help="ID of the trial")]
LogArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="ID",
        help="ID of a trial, 'supernet' for the training of the supernet, or 'adapted' for the domain adaptation of "
        "the pretrained model",
    ),
]
SourceArgument = Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="YAML config file, or run directory")]

AllowOption = Annotated[
    bool,
    typer.Option("--allow-plugins", help="execute the plugin files and hooks that the run names; refused by default"),
]
InlineOption = Annotated[
    bool,
    typer.Option("--inline", help="run trials one at a time in this process; by default, Ray workers run them"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")]
WideOption = Annotated[
    bool, typer.Option("--wide", help="show architectures with the names of their choices, not only the values")
]
FormatOption = Annotated[
    Optional[str], typer.Option("--format", metavar="FORMAT", help="table, csv or json; by default table")
]
SetOption = Annotated[
    Optional[list[str]], typer.Option("--set", metavar=SET, help="override a key of the config; may be repeated")
]
ResumeSetOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", metavar=SET, help="override a key of final_training, budget, resources or watching; may be repeated"
    ),
]
SupportOption = Annotated[
    Optional[Path],
    typer.Option("--support", metavar="FILE", help="JSON Lines or CSV with a few examples of every class"),
]
ToOption = Annotated[Path, typer.Option("--to", metavar="DIR", help="new or empty folder to write")]
LastOption = Annotated[
    Optional[int],
    typer.Option(
        "--last",
        min=0,
        metavar="N",
        help=f"show the last N trials, or with --sort the best N; 0 shows all; by default {LISTED}, as CSV or JSON all",
    ),
]
TrialsOption = Annotated[
    Optional[int], typer.Option("--trials", metavar="N", help="number of trials; the same as --set budget.trials=N")
]
WorkersOption = Annotated[
    Optional[int],
    typer.Option(
        "--workers", metavar="N", help="trials that run at the same time; the same as --set resources.workers=N"
    ),
]
SeedOption = Annotated[
    Optional[int], typer.Option("--seed", metavar="N", help="seed of all random numbers; the same as --set seed=N")
]
RunDirOption = Annotated[
    Optional[Path],
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="new directory for the run; by default run_dir of the config, or a new one under runs/",
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="resume the run in --run-dir if there is one, otherwise start it")
]
RerunOption = Annotated[
    bool,
    typer.Option("--rerun", help="train and score it again in this process; errors show a traceback"),
]
QueryOption = Annotated[
    Optional[Path],
    typer.Option("--query", metavar="FILE", help="more examples of the classes, to measure the accuracy on"),
]
ShotsOption = Annotated[
    Optional[int],
    typer.Option("--shots", min=1, metavar="K", help="support examples per class; by default tasks.shots"),
]
ScoresOption = Annotated[
    Optional[str],
    typer.Option("--scores", metavar="NAME,...", help="proxies to compute, the first one ranks; by default all"),
]
ArchitecturesOption = Annotated[
    int,
    typer.Option(
        "--architectures", min=1, metavar="N", help="random architectures scored for a config; ignored for a run"
    ),
]
