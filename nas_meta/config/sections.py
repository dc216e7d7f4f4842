"""The sections of a config as pydantic models: every key with its type, its default and its meaning.

Descriptions of fields are user documentation: the JSON Schema and the reference of the config quote them. Options of
plugins are not here; they are further keys of the section that names the plugin (:data:`PLUGIN_SECTIONS`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nas_meta.config.final_training_section import FinalTrainingSection
from nas_meta.config.objective_section import DEFAULT_OBJECTIVES, ObjectiveSection, with_defaults
from nas_meta.config.recipe import AUTO
from nas_meta.config.section import Section
from nas_meta.config.watching_section import WatchingSection
from nas_meta.core.objectives import Limit, Objective
from nas_meta.core.paths import absolute
from nas_meta.errors import nearest
from nas_meta.evaluation.metrics import LATENCY, METRICS, OPEN_SET
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.evaluation.proxies import PROXIES
from nas_meta.models.onnx.forms import TORCH


class TasksSection(Section):
    """Section ``tasks``: the task source and the shape of few-shot episodes; options of the source are further keys."""

    source: str = Field("icd10", description="task source: an installed name or path/to/file.py:Name")
    ways: int | None = Field(
        None, ge=2, description="classes per episode (N); by default 5, or fewer if a split has fewer classes"
    )
    shots: int = Field(1, ge=1, description="support examples per class (K)")
    queries: int = Field(5, ge=1, description="query examples per class (Q)")
    train_ways: int | Literal["auto"] | None = Field(
        None,
        description="classes per meta-training episode; auto is four times ways, or all classes of meta-train if these "
        "are fewer; by default auto for learners that compare embeddings, otherwise ways",
    )
    train_shots: int | None = Field(
        None, ge=1, description="support examples per class in meta-training; by default shots"
    )
    train_queries: int | Literal["auto"] | None = Field(
        None,
        description="query examples per class in meta-training; auto is 2, or queries if that is 1; by default auto "
        "where train_ways is, otherwise queries",
    )
    max_tokens: int = Field(32, ge=4, description="maximum length of a text in tokens; longer texts are truncated")
    pooling: Literal["mean", "cls", "last", "attention"] = Field(
        "mean", description="how token states become one embedding; ignored if the architecture chooses its pooling"
    )

    class_names: bool = Field(
        False,
        description="whether the name of each class is one more support example, in training, evaluation and use; "
        "worth it where names are words, such as card_lost",
    )

    @field_validator("train_ways", "train_queries", mode="before")
    @classmethod
    def _is_a_number_or_auto(cls, given: Any, info: ValidationInfo) -> Any:
        least = 2 if info.field_name == "train_ways" else 1
        if given not in (None, AUTO) and (isinstance(given, bool) or not isinstance(given, int) or given < least):
            raise ValueError(f"{given!r} is not a number of examples or classes; expected {AUTO} or at least {least}")
        return given


class NamedSection(Section):
    """Base class of sections that name a plugin; the options of the plugin are further keys."""

    name: str = Field(description="plugin: an installed name or path/to/file.py:Name")


class SpaceSection(NamedSection):
    """Section ``space``: the search space."""

    name: str = Field("bert-subnet", description="search space: an installed name or path/to/file.py:Name")


class LearnerSection(NamedSection):
    """Section ``learner``: how candidates are meta-trained and adapt to a task."""

    name: str = Field("protonet", description="learner: an installed name or path/to/file.py:Name")


class PrefilterSection(Section):
    """Section ``strategy.prefilter``: a zero-cost proxy that selects among the proposals of a strategy."""

    score: str = Field(description=f"zero-cost proxy that ranks proposals: {', '.join(PROXIES)}")
    of: int = Field(8, ge=2, description="proposals per trial; the one with the best score is tried")

    @field_validator("score")
    @classmethod
    def _is_known(cls, score: str) -> str:
        if score not in PROXIES:
            raise ValueError(f"'{score}' is not a zero-cost proxy; {nearest(score, PROXIES)}")
        return score


class StrategySection(NamedSection):
    """Section ``strategy``: how architectures are proposed."""

    name: str = Field("evolution", description="strategy: an installed name or path/to/file.py:Name")
    prefilter: PrefilterSection | None = Field(
        None, description="try only the proposal that a zero-cost proxy ranks best; by default every proposal is tried"
    )


class StoppingSection(NamedSection):
    """Section ``stopping``: when a trial ends early."""

    name: str = Field("none", description="stopping rule: an installed name or path/to/file.py:Name")


class EvaluationSection(Section):
    """Section ``evaluation``: how trials are validated, and which of them are kept and meta-tested."""

    protocol: Literal["episodes", "full-way"] = Field(
        "episodes",
        description="what trials are validated and tested on: episodes of tasks.ways classes, or all classes of a "
        "split at once, over at most ten draws of tasks.shots support examples per class",
    )
    episodes: int = Field(200, ge=2, description="meta-validation episodes per trial, the same ones for every trial")
    interim_every: int = Field(0, ge=0, description="meta-training steps between two interim validations; 0 for none")
    interim_episodes: int = Field(40, ge=2, description="meta-validation episodes per interim validation")
    test_episodes: int = Field(600, ge=2, description="meta-test episodes per tested trial, after the search")
    test_best: int = Field(3, ge=0, description="number of trials, best by the first objective, that are meta-tested")
    keep: int = Field(
        3, ge=1, description="number of trials, best by the first objective, whose trained weights are kept"
    )
    compare: bool = Field(True, description="train what the best trial is compared with, which costs about two trials")
    open_set: bool = Field(
        False,
        description="also measure for every trial how well queries of other classes are distinguished: oos_auroc and "
        "oos_fpr95",
    )
    flops_tokens: int = Field(32, ge=1, description="length of the text for which FLOPs are counted, in tokens")
    check_models: bool = Field(
        True, description="train, save and reload a few architectures before the first trial, to find what would fail"
    )


class ComputeSection(Section):
    """Section ``compute``: how the models of trials compute."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="device of the models; auto uses GPUs if any")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32",
        description="bf16 computes matrix products and attention in bfloat16; weights and the rest stay in fp32; auto "
        "is bf16 on a CPU that multiplies such matrices itself (AMX), otherwise fp32",
    )
    compile: bool = Field(
        False, description="compile the model of every trial with torch.compile; pays off for long trials"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute layers in the backward pass; saves memory for about a third more time"
    )


class LatencySection(Section):
    """Section ``latency``: how the latency of a model is measured."""

    batch: int = Field(1, ge=1, description="examples per forward pass")
    tokens: int = Field(32, ge=1, description="length of each text, in tokens")
    threads: int = Field(1, ge=1, description="CPU threads of the measurement; its device is the one of the trials")
    seconds: float = Field(
        1.0, gt=0, description="measuring time for each model of the Pareto front after the search, in seconds"
    )
    models: int = Field(
        24, ge=4, description="random models measured before the search to fit a predictor, if latency is an objective"
    )


class BudgetSection(Section):
    """Section ``budget``: when the search ends."""

    trials: int = Field(20, ge=1, description="number of trials to run")
    hours: float | None = Field(
        None, gt=0, description="hours, over all sessions, after which no further trial starts; by default no limit"
    )
    timeout_minutes: float | None = Field(
        None, gt=0, description="minutes after which a running trial is ended as timed-out; by default no limit"
    )
    max_identical_failures: int | None = Field(
        5,
        ge=1,
        description="number of trials that fail for the same reason, before any trial succeeds, after which the search "
        "ends; null for no limit",
    )


class ResourcesSection(Section):
    """Section ``resources``: where trials run and what each of them gets."""

    workers: int = Field(2, ge=1, description="number of trials that run at the same time")
    cpus_per_trial: float | None = Field(
        None, gt=0, description="CPUs per trial; by default the CPUs of this machine divided by workers"
    )
    gpus_per_trial: float | None = Field(
        None,
        ge=0,
        description="GPUs per trial; 0.5 lets two trials share a GPU; by default all GPUs are divided by workers",
    )
    placement: Literal["packed", "spread"] = Field(
        "packed", description="on a cluster: packed fills one node before the next, spread uses all nodes"
    )
    niceness: int = Field(
        0, ge=0, le=19, description="added to the niceness of the search, or of the cluster's Ray, for the workers"
    )
    retries: int = Field(
        2, ge=0, description="how often a trial or a supernet training is retried after its worker dies"
    )
    grace_seconds: float = Field(
        30, ge=0, description="seconds for running trials to finish after Ctrl-C; a second Ctrl-C ends the search"
    )
    address: str | None = Field(
        None,
        description="existing Ray cluster to use, auto or host:port; by default the search starts Ray on this machine",
    )


class Config(Section):
    """A complete config. The first objective ranks trials; all objectives together define the Pareto front."""

    space: SpaceSection = Field(default_factory=SpaceSection)
    tasks: TasksSection = Field(default_factory=TasksSection)
    learner: LearnerSection = Field(default_factory=LearnerSection)
    pretraining: PretrainingSection | None = Field(
        None, description="self-supervised training on unlabelled text before meta-training; by default none"
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
    final_training: FinalTrainingSection | None = Field(
        None, description="further training of the best trials after the search; by default none"
    )
    watching: WatchingSection = Field(default_factory=WatchingSection)
    seed: int = Field(0, ge=0, description="seed of all random numbers")
    run_dir: Path | None = Field(None, description="run directory; by default a new folder under runs/")

    @field_validator("run_dir")
    @classmethod
    def _absolute_run_dir(cls, directory: Path | None) -> Path | None:
        return None if directory is None else Path(absolute(directory))

    @field_validator("objectives", mode="before")
    @classmethod
    def _by_metric(cls, given: Any) -> Any:
        """Turn the short form ``{accuracy: maximize, params: {max: 16e6}}`` into a list of objectives."""
        if not isinstance(given, dict):
            return with_defaults(given)
        for metric, rest in given.items():
            if not isinstance(rest, (str, dict, type(None))):
                raise ValueError(f"{metric} is {rest!r}; expected a direction, or keys such as 'direction:'")
        return with_defaults(
            [
                {"metric": metric, **({"direction": rest} if isinstance(rest, str) else rest or {})}
                for metric, rest in given.items()
            ]
        )

    @field_validator("objectives")
    @classmethod
    def _require_a_direction(cls, objectives: list[ObjectiveSection]) -> list[ObjectiveSection]:
        if all(o.direction == "none" for o in objectives):
            raise ValueError("no metric has a direction; expected one such as accuracy: maximize")
        return objectives

    @model_validator(mode="after")
    def _check_measured(self) -> Config:
        """Reject an objective that no trial of this config measures."""
        pretrains = self.pretraining is not None and self.pretraining.of == "candidates"
        for objective in self.objectives:
            if METRICS[objective.metric].needs == "pretraining" and not pretrains:
                raise ValueError(
                    f"objectives has {objective.metric}, which only pre-trained candidates have; "
                    "expected pretraining: {of: candidates}, or another metric"
                )
        final, keep = self.final_training, self.evaluation.keep
        if final is not None and final.trials > keep:
            raise ValueError(
                f"final_training.trials is {final.trials}, but evaluation.keep is {keep}; "
                "expected at most as many trials as keep their weights"
            )
        latencies = [o.metric for o in self.objectives if o.metric.startswith(LATENCY)]
        if len(set(latencies)) > 1:
            raise ValueError(f"objectives has {' and '.join(latencies)}; expected the latency of one form")
        return self

    @property
    def optimised(self) -> list[Objective]:
        """The objectives with a direction; the first one ranks trials."""
        return [Objective(o.metric, o.direction, o.reference) for o in self.objectives if o.direction != "none"]

    @property
    def device(self) -> str:
        """Device of the models, ``cpu`` or ``cuda``, with ``auto`` decided."""
        if self.compute.device != "auto":
            return self.compute.device
        gpus = self.resources.gpus_per_trial
        if gpus is None:  # outside of a search, which shares the GPUs out first
            from nas_meta.models.compute import available_gpus

            gpus = available_gpus()
        return "cuda" if gpus else "cpu"

    @property
    def precision(self) -> str:
        """Precision of the models, ``fp32`` or ``bf16``, with ``auto`` decided."""
        if self.compute.precision != "auto":
            return self.compute.precision
        from nas_meta.models.compute import has_amx

        # What the other machines of a cluster have is not known here.
        return "bf16" if self.device == "cpu" and self.resources.address is None and has_amx() else "fp32"

    @property
    def optimises_latency(self) -> bool:
        """Whether the search needs predicted latencies, because latency is optimised or limited."""
        return any(o.metric.startswith(LATENCY) for o in self.objectives)

    @property
    def latency_form(self) -> str:
        """Form of the model whose latency the search measures: that of the objective, if latency is one."""
        return next((METRICS[o.metric].form for o in self.objectives if o.metric.startswith(LATENCY)), TORCH)

    @property
    def asked_metrics(self) -> tuple[str, ...]:
        """Metrics that are measured only because this config asks for them."""
        names = [*(o.metric for o in self.objectives), *(OPEN_SET if self.evaluation.open_set else ())]
        return tuple(name for name in dict.fromkeys(names) if METRICS[name].asked)

    @property
    def limits(self) -> list[Limit]:
        """Limits of all objectives that have ``min`` or ``max``."""
        bounds = [(o.metric, *(METRICS[o.metric].parse(bound) for bound in (o.min, o.max))) for o in self.objectives]
        return [Limit(metric, least, most) for metric, least, most in bounds if (least, most) != (None, None)]


PLUGIN_SECTIONS = {
    "space": (SpaceSection, "spaces", "name"),
    "tasks": (TasksSection, "tasks", "source"),
    "learner": (LearnerSection, "learners", "name"),
    "strategy": (StrategySection, "strategies", "name"),
    "stopping": (StoppingSection, "stopping", "name"),
}
"""Sections that name a plugin: section -> (model of its own keys, kind of plugin, key that names the plugin).

All other keys of such a section are options of the plugin.
"""
