"""Section ``watching`` of a config: hooks, monitors and the report of a search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nas_meta.config.section import Section
from nas_meta.core.options import CodeName
from nas_meta.core.paths import NamesFiles, absolute_hook


class WandbSection(Section):
    """Section ``watching.wandb``: logging to Weights & Biases."""

    project: str = Field("nas-meta", min_length=1, description="Weights & Biases project that gets a run per search")
    mode: Literal["offline", "online"] = Field(
        "offline", description="offline only writes into the run directory, online also uploads"
    )


class MlflowSection(Section):
    """Section ``watching.mlflow``: logging to MLflow."""

    experiment: str = Field("nas-meta", min_length=1, description="MLflow experiment that gets a run per search")
    uri: str | None = Field(
        None,
        min_length=1,
        description="tracking server or database, such as http://127.0.0.1:5000; by default that of "
        "MLFLOW_TRACKING_URI, or else mlflow.db in the run directory",
    )


HOOKS = ("on_trial_end", "on_search_end")
HOOK = (
    "{}: a command as a list, which gets the event as JSON on standard input, or path/to/file.py:function or "
    "module:function, which gets it as a dict; by default none"
)
Hook = Annotated[list[str] | CodeName | None, NamesFiles(absolute_hook, lists=True)]


class WatchingSection(Section):
    """Section ``watching``: hooks and monitors of a search."""

    on_trial_end: Hook = Field(None, description=HOOK.format("hook called after every trial"))
    on_search_end: Hook = Field(None, description=HOOK.format("hook called after the search"))
    hook_seconds: float = Field(60, gt=0, description="timeout of one hook call, in seconds")
    report: bool = Field(True, description="write report.html into the run directory at the end of the search")
    prometheus: int | None = Field(
        None, ge=1, le=65535, description="port on which Ray serves metrics for Prometheus; by default none"
    )
    wandb: WandbSection | None = Field(
        None, description="log to Weights & Biases in addition to TensorBoard; by default disabled"
    )
    mlflow: MlflowSection | None = Field(
        None, description="log to MLflow in addition to TensorBoard; by default disabled"
    )

    @field_validator(*HOOKS, mode="before")
    @classmethod
    def _is_a_hook(cls, given: Any) -> Any:
        command = isinstance(given, list) and given and all(isinstance(part, str) and part for part in given)
        function = isinstance(given, str) and all(given.rpartition(":")[::2])
        if given is not None and not command and not function:
            raise ValueError(
                f"{given!r} is not a hook; expected a command as a list such as [notify-send, nas-meta], "
                "or path/to/file.py:function"
            )
        return given

    @field_validator(*HOOKS)
    @classmethod
    def _absolute_hook(cls, hook: list[str] | str | None) -> list[str] | str | None:
        return absolute_hook(hook)
