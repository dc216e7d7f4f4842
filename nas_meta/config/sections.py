"""The sections of the YAML file as pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nas_meta.core.objectives import Limit, Objective
from nas_meta.errors import nearest
from nas_meta.evaluation.metrics import METRICS, metric_of
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.evaluation.proxies import PROXIES


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class TasksSection(Section):
    """What every task source shares; the source's own options stand beside these."""

    source: str = Field("icd10", description="task source: an installed name or path/to/file.py:Name")
    ways: int = Field(5, ge=2, description="classes in an episode (N)")
    shots: int = Field(1, ge=1, description="support examples a class (K)")
    queries: int = Field(5, ge=1, description="query examples a class (Q)")
    train_ways: int | None = Field(None, ge=2, description="classes in an episode of meta-training; by default ways")
    train_shots: int | None = Field(None, ge=1, description="the same for shots")
    train_queries: int | None = Field(None, ge=1, description="the same for queries")
    max_tokens: int = Field(32, ge=4, description="texts are cut to this many tokens")
    pooling: Literal["mean", "cls", "last", "attention"] = Field(
        "mean", description="how token states become one embedding, where the architecture does not choose it"
    )


class NamedSection(Section):
    name: str = Field(description="the plugin: an installed name or path/to/file.py:Name")


class SpaceSection(NamedSection):
    name: str = Field("bert-subnet", description="search space: an installed name or path/to/file.py:Name")


class LearnerSection(NamedSection):
    name: str = Field("protonet", description="learner: an installed name or path/to/file.py:Name")


class PrefilterSection(Section):
    score: str = Field(description=f"a zero-cost score: {', '.join(PROXIES)}")
    of: int = Field(8, ge=2, description="proposals of which the best by score is tried")

    @field_validator("score")
    @classmethod
    def _is_known(cls, score: str) -> str:
        if score not in PROXIES:
            raise ValueError(f"there is no score '{score}'; {nearest(score, PROXIES)}")
        return score


class StrategySection(NamedSection):
    name: str = Field("evolution", description="strategy: an installed name or path/to/file.py:Name")
    prefilter: PrefilterSection | None = Field(
        None, description="of several proposals the best by a zero-cost score is tried; by default every one"
    )


class StoppingSection(NamedSection):
    name: str = Field("none", description="stopping rule: an installed name or path/to/file.py:Name")


class EvaluationSection(Section):
    episodes: int = Field(200, ge=2, description="meta-validation episodes, the same for every trial")
    interim_every: int = Field(0, ge=0, description="also validate every so many steps; 0 never")
    interim_episodes: int = Field(40, ge=2, description="episodes of such an interim validation")
    test_episodes: int = Field(600, ge=2, description="meta-test episodes after the search")
    test_best: int = Field(3, ge=0, description="how many of the best are meta-tested")
    keep: int = Field(3, ge=1, description="trained weights are kept of so many best trials")
    check_models: bool = Field(
        True,
        description="whether a few architectures are trained for a step, saved and reloaded before the first trial",
    )
    flops_tokens: int = Field(32, ge=1, description="FLOPs are those of one text of so many tokens")


class ObjectiveSection(Section):
    metric: str = Field(description="a metric of a trial, such as accuracy, params or flops")
    direction: Literal["maximize", "minimize", "none"] = Field(
        description="which way is better; none where the metric is only limited"
    )
    min: float | None = Field(None, description="a candidate below is refused")
    max: float | None = Field(None, description="a candidate above is refused, before training where that is known")
    reference: float | None = Field(None, description="the value from which the hypervolume is measured")

    @model_validator(mode="before")
    @classmethod
    def _direction(cls, given: Any) -> Any:
        if isinstance(given, dict) and "direction" not in given:
            limited = not {"min", "max"}.isdisjoint(given) and "reference" not in given
            given = given | {"direction": "none" if limited else metric_of(str(given.get("metric"))).direction}
        return given

    @field_validator("metric")
    @classmethod
    def _is_measured(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no trial measures '{metric}'; {nearest(metric, METRICS)}")
        return metric


class ComputeSection(Section):
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where trials get GPUs, else cpu")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: matrix products and attention in bfloat16, weights and the rest in fp32"
    )
    compile: bool = Field(False, description="torch.compile for the model of every trial: for long trials")
    gradient_checkpointing: bool = Field(
        False, description="layers are computed again in the backward pass: less memory, about a third more time"
    )


class LatencySection(Section):
    batch: int = Field(1, ge=1, description="examples at a time")
    tokens: int = Field(32, ge=1, description="of each text")
    threads: int = Field(1, ge=1, description="CPU threads; the device is that of the trials")
    seconds: float = Field(1.0, gt=0, description="how long each of the Pareto front is run after the search")
    models: int = Field(24, ge=4, description="random ones that a table is fitted to, where latency is an objective")


class BudgetSection(Section):
    trials: int = Field(20, ge=1, description="trials to run")
    hours: float | None = Field(None, gt=0, description="no trial is started after so many hours")
    timeout_minutes: float | None = Field(None, gt=0, description="a trial that takes longer is ended")


class ResourcesSection(Section):
    workers: int = Field(2, ge=1, description="trials at a time")
    cpus_per_trial: float | None = Field(None, gt=0, description="CPUs a trial; by default shared out evenly")
    gpus_per_trial: float = Field(0, ge=0, description="GPUs a trial, may be a fraction")
    placement: Literal["packed", "spread"] = Field(
        "packed", description="on a cluster: fill a node before the next, or go round the nodes"
    )
    retries: int = Field(2, ge=0, description="a trial whose worker dies is run again so many times")
    grace_seconds: float = Field(30, ge=0, description="for what runs to finish after Ctrl-C; a second one ends it")
    address: str | None = Field(None, description="an existing Ray cluster; by default one starts in this process")


class WandbSection(Section):
    project: str = Field("nas-meta", min_length=1, description="the project that the search is a run of")
    mode: Literal["offline", "online"] = Field("offline", description="offline writes below the run directory alone")


HOOKS = ("on_trial_end", "on_search_end")
HOOK = "a command as a list, or path/to/file.py:function or module:function; it gets the event as JSON or a dict"


class WatchingSection(Section):
    on_trial_end: list[str] | str | None = Field(None, description=HOOK)
    on_search_end: list[str] | str | None = Field(None, description=HOOK)
    hook_seconds: float = Field(60, gt=0, description="an event may take a hook so long")
    prometheus: int | None = Field(None, ge=1, le=65535, description="port on which Ray's exporter listens")
    wandb: WandbSection | None = Field(None, description="a logger beside TensorBoard; by default none")

    @field_validator(*HOOKS, mode="before")
    @classmethod
    def _is_a_hook(cls, given: Any) -> Any:
        command = isinstance(given, list) and given and all(isinstance(part, str) and part for part in given)
        function = isinstance(given, str) and all(given.rpartition(":")[::2])
        if given is not None and not command and not function:
            raise ValueError(
                f"{given!r} is no hook; expected a command as a list such as [notify-send, nas-meta], "
                "or path/to/file.py:function"
            )
        return given


DEFAULT_OBJECTIVES = [
    {"metric": "accuracy", "direction": "maximize"},
    {"metric": "flops", "direction": "minimize"},
]


class Config(Section):
    """A search. The first objective ranks trials; all of them make the Pareto front."""

    space: SpaceSection = Field(default_factory=SpaceSection)
    tasks: TasksSection = Field(default_factory=TasksSection)
    learner: LearnerSection = Field(default_factory=LearnerSection)
    pretraining: PretrainingSection | None = Field(
        None, description="self-supervised training on unlabelled text before meta-training; left out: none"
    )
    strategy: StrategySection = Field(default_factory=StrategySection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    stopping: StoppingSection = Field(default_factory=StoppingSection)
    objectives: list[ObjectiveSection] = Field(
        default_factory=lambda: [ObjectiveSection(**o) for o in DEFAULT_OBJECTIVES], min_length=1
    )
    compute: ComputeSection = Field(default_factory=ComputeSection)
    latency: LatencySection = Field(default_factory=LatencySection)
    budget: BudgetSection = Field(default_factory=BudgetSection)
    resources: ResourcesSection = Field(default_factory=ResourcesSection)
    watching: WatchingSection = Field(default_factory=WatchingSection)
    seed: int = Field(0, ge=0, description="of everything random")
    run_dir: Path | None = Field(None, description="where the run lies; by default a new folder under runs/")

    @field_validator("objectives", mode="before")
    @classmethod
    def _by_metric(cls, given: Any) -> Any:
        """``{accuracy: maximize, params: {max: 16e6}}`` as a list of objectives."""
        if not isinstance(given, dict):
            return given
        for metric, rest in given.items():
            if not isinstance(rest, (str, dict, type(None))):
                raise ValueError(f"that of {metric} is {rest!r}; expected a direction, or keys such as 'direction:'")
        return [
            {"metric": metric, **({"direction": rest} if isinstance(rest, str) else rest or {})}
            for metric, rest in given.items()
        ]

    @field_validator("objectives")
    @classmethod
    def _something_is_better(cls, objectives: list[ObjectiveSection]) -> list[ObjectiveSection]:
        if all(o.direction == "none" for o in objectives):
            raise ValueError("only limits are given; expected a metric with a direction, such as accuracy: maximize")
        return objectives

    @model_validator(mode="after")
    def _objectives_are_measured(self) -> Config:
        """Refuse an objective that no trial of this config measures."""
        pretrains = self.pretraining is not None and self.pretraining.of == "candidates"
        for objective in self.objectives:
            if METRICS[objective.metric].needs == "pretraining" and not pretrains:
                raise ValueError(
                    f"objectives has {objective.metric}, which only pre-trained candidates have; "
                    "expected pretraining: {of: candidates}, or another metric"
                )
        return self

    @property
    def optimised(self) -> list[Objective]:
        """What is optimised; the first ranks trials."""
        return [Objective(o.metric, o.direction, o.reference) for o in self.objectives if o.direction != "none"]

    @property
    def device(self) -> str:
        """Where models compute."""
        automatic = "cuda" if self.resources.gpus_per_trial else "cpu"
        return automatic if self.compute.device == "auto" else self.compute.device

    @property
    def optimises_latency(self) -> bool:
        """Whether candidates must be told apart by latency during the search."""
        return any(o.metric == "latency" for o in self.objectives)

    @property
    def limits(self) -> list[Limit]:
        """What no candidate may exceed."""
        return [Limit(o.metric, o.min, o.max) for o in self.objectives if o.min is not None or o.max is not None]


# section of the file -> (its model, kind of plugin whose options stand in it, key that names the plugin)
PLUGIN_SECTIONS = {
    "space": (SpaceSection, "spaces", "name"),
    "tasks": (TasksSection, "tasks", "source"),
    "learner": (LearnerSection, "learners", "name"),
    "strategy": (StrategySection, "strategies", "name"),
    "stopping": (StoppingSection, "stopping", "name"),
}
