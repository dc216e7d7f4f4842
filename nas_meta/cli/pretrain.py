"""The command that pre-trains one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from nas_meta.cli.plugins import JsonOption, print_json
from nas_meta.errors import ConfigError


def pretrain(
    subject: Annotated[str, typer.Argument(metavar="CONFIG|MODEL", help="a YAML config, or a pretrained model")],
    to: Annotated[Path, typer.Option(help="a new folder")],
    corpus: Annotated[
        Optional[list[str]], typer.Option(metavar="PATH", help="text files, folders, JSON Lines; or default")
    ] = None,
    architecture: Annotated[
        Optional[str], typer.Option(metavar="JSON", help="of the config's space; by default its reference model")
    ] = None,
    steps: Annotated[Optional[int], typer.Option(min=1, help="the budget")] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="e.g. pretraining.objective=clm"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pre-train one architecture from nothing, or a pretrained model further, on unlabelled text."""
    from nas_meta.outputs.pretrained_model import pretrain_alone, resolved_for

    resolved, model = resolved_for(subject, corpus, steps, set_ or [])
    chosen = None if architecture is None else parsed(architecture)
    if chosen is not None and model is not None:
        raise ConfigError("--architecture is of a search space, but a pretrained model is named; expected one of them")

    def watch(look: Any, values: Any) -> None:
        if not as_json:
            typer.echo(f"step {look.step}  " + "  ".join(f"{n.partition('/')[2]} {v:.4g}" for n, v in values.items()))

    done = pretrain_alone(resolved, to, model, chosen, watch)
    if as_json:
        print_json(vars(done))
        return
    told = f"loss {done.loss:.4f}" + ("" if done.perplexity is None else f", perplexity {done.perplexity:.1f}")
    typer.echo(f"{done.params / 1e6:.1f} M parameters, {done.steps} steps, {done.tokens:,} tokens: {told}")
    typer.echo(f"written to {done.folder}: load it with transformers.AutoModel.from_pretrained('{done.folder}')")


def parsed(architecture: str) -> dict[str, Any]:
    """An architecture as typed."""
    try:
        values = json.loads(architecture)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--architecture is not JSON ({error}); expected an object of choices") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--architecture is {values!r}; expected an object of choices")
    return values
