"""``nas-meta export``: write a trained model, for torch and transformers or as an ONNX graph."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.opening import opened as open_run
from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError, nearest

TRANSFORMERS, ONNX = FORMATS = ("transformers", "onnx")


def export(
    to: options.ToOption,
    run: options.RunArgument = None,
    trial: Annotated[
        Optional[int], typer.Option("--trial", metavar="ID", help="trial to export; by default the best")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="transformers, or onnx, which needs no torch to classify")
    ] = TRANSFORMERS,
    quantize: Annotated[
        Optional[str],
        typer.Option("--quantize", metavar="KIND", help="with --format onnx: int8 or int8-static; by default float32"),
    ] = None,
    float_embeddings: Annotated[
        bool,
        typer.Option("--no-quantize-embeddings", help="with --quantize: leave the embedding tables in float32"),
    ] = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Write the trained model of a trial as a Hugging Face folder, or as an ONNX graph."""
    if format_ not in FORMATS:
        raise ConfigError(f"--format is '{format_}'; {nearest(format_, FORMATS)}")
    if quantize is not None and format_ != ONNX:
        raise ConfigError(f"--quantize {quantize} is given for the format {format_}; expected --format onnx with it")
    opened = open_run(run, allow_plugins)
    if format_ == ONNX:
        from nas_meta.outputs.onnx.folder import export_onnx

        folder = export_onnx(opened, to, trial, quantize or "none", not float_embeddings, echo)
    else:
        from nas_meta.outputs.export.folder import export as export_folder

        folder = export_folder(opened, to, trial)
    echo(f"written to {folder}: its README.md shows how to load it", hanging=0)
