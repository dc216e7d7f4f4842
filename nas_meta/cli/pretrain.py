"""The command ``nas-meta pretrain``, which pre-trains one model outside a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from nas_meta.cli.options import SET, JsonOption, ToOption
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.errors import ConfigError


def pretrain(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|MODEL",
            help="YAML config with a search space, or a pretrained model: a folder, a hub name, or starter:minilm",
        ),
    ],
    to: ToOption,
    corpus: Annotated[
        Optional[list[str]],
        typer.Option(
            "--corpus",
            metavar="PATH",
            help="text file, JSON Lines file, folder, or 'default' for the default corpus; may be repeated; "
            "by default pretraining.corpus",
        ),
    ] = None,
    architecture: Annotated[
        Optional[str],
        typer.Option(
            "--architecture",
            metavar="JSON",
            help="architecture of the config's space, as an object of choices; by default the reference model of the "
            "space. Required for spaces without a reference model, such as those that build models from scratch "
            "(encoder, decoder, cell-encoder)",
        ),
    ] = None,
    steps: Annotated[
        Optional[int],
        typer.Option(
            "--steps",
            min=1,
            metavar="N",
            help="number of training steps; by default the budget of the section pretraining",
        ),
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar=SET, help="override a key, e.g. pretraining.objective=clm; may be repeated"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pre-train an architecture from scratch, or continue the pre-training of a model, on unlabelled text."""
    from nas_meta.outputs.pretrained_model import pretrain_alone, resolve_pretraining

    resolved, model = resolve_pretraining(source, corpus, steps, set_ or [])
    values = None if architecture is None else parse_architecture(architecture)
    if values is not None and model is not None:
        raise ConfigError(
            f"--architecture needs a search space, but {model} is a pretrained model; expected a config, or no "
            "--architecture"
        )

    def watch(status: Any, measured: Any) -> None:
        if not as_json:
            shown = "  ".join(f"{name.partition('/')[2]} {value:.4g}" for name, value in measured.items())
            echo(f"step {status.step}  {shown}")

    def announce(phase: str) -> None:
        if not as_json:
            echo(f"{phase} …")

    result = pretrain_alone(resolved, to, model, values, watch, announce)
    if as_json:
        print_json(vars(result))
        return
    losses = f"loss {result.loss:.4f}" + ("" if result.perplexity is None else f", perplexity {result.perplexity:.1f}")
    echo(f"{result.params / 1e6:.1f} M parameters, {result.steps} steps, {result.tokens:,} tokens: {losses}")
    from nas_meta.outputs.export.own_code import names_code

    code = ", trust_remote_code=True" if names_code(Path(result.folder)) else ""
    echo(f"written to {result.folder}: load it with transformers.AutoModel.from_pretrained('{result.folder}'{code})")


def parse_architecture(architecture: str) -> dict[str, Any]:
    """Parse the value of ``--architecture``.

    Args:
        architecture: The option as typed.

    Returns:
        The values by choice; not yet checked against a space.

    Raises:
        ConfigError: The text is not a JSON object.
    """
    try:
        values = json.loads(architecture)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--architecture is not valid JSON ({error}); expected an object of choices") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--architecture is {values!r}; expected an object of choices")
    return values
