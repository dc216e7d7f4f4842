"""The checks before the first trial, run on a worker; the driver raises what they find."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from nas_meta import errors
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.controller.calls import Call, run_calls
from nas_meta.evaluation.metrics import METRICS
from nas_meta.evaluation.preflight import preflight
from nas_meta.evaluation.trial import Evaluation
from nas_meta.execution.engine import Engine
from nas_meta.models.onnx.forms import TORCH

log = logging.getLogger(__name__)


def check_before_trials(
    engine: Engine, evaluation: Evaluation, resolved: ResolvedConfig, stopped: Callable[[], bool]
) -> None:
    """Refuse a search whose models cannot be trained, pre-trained or exported.

    The checks are those of :mod:`nas_meta.evaluation.preflight`. If the worker dies, or the space raises anything but a
    NasMetaError, the search continues: the trials report it.

    Args:
        engine: The engine; no call is running.
        evaluation: Its payload.
        resolved: The config of the search.
        stopped: Returns whether the search was interrupted, which ends the checks.

    Raises:
        NasMetaError: What the checks found; usually a ConfigError.
    """
    section = resolved.sections
    models = section.evaluation.check_models
    forms = sorted({METRICS[o.metric].form for o in section.objectives} - {TORCH})
    if not models and evaluation.pretraining is None and not forms:
        return
    model = getattr(resolved.options["space"], "model", None)
    key = f"space.model '{model}'" if model else None
    lengths = {"evaluation.flops_tokens": section.evaluation.flops_tokens, "latency.tokens": section.latency.tokens}
    job = partial(preflight, key=key, lengths=lengths, models=models, forms=forms)
    for event in run_calls(engine, [Call("preflight", "run", (job,))], 0, stopped):
        if event.error:
            log.warning("the models could not be checked before the first trial: %s", event.error)
        elif found := event.value.findings:
            raise getattr(errors, found["error"], errors.ConfigError)(found["message"])
