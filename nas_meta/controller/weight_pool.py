"""Pre-trained weights of a run, on the driver: made once, then given to every trial that starts from them.

``RUN/pretrained/KEY.safetensors``; the journal holds of each trial the key and from which key it inherited, so that a
trial which is run again begins as it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nas_meta.config.pretraining import check_candidates, make_stage
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.evaluation.pretraining.stage import Pretraining
from nas_meta.evaluation.pretraining.weight_inheritance import nearest
from nas_meta.journal.database import Journal
from nas_meta.journal.pretraining_record import name_of_record, path_of, record_of
from nas_meta.journal.records import Trial
from nas_meta.journal.run import write_atomically
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import WrappedSpace
from nas_meta.tasks.corpus.corpus import Corpus

if TYPE_CHECKING:
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.strategy.protocol import Strategy


class Start(NamedTuple):
    """What a trial begins with: weights that are pre-trained, or those that its own pre-training inherits from."""

    weights: np.ndarray | None = None
    donor: np.ndarray | None = None


@dataclass(frozen=True)
class _Made:
    """Of one trial: the architecture as the space itself knows it, the key of its weights, and of their donor's."""

    architecture: Architecture
    key: str
    donor: str | None


@dataclass
class WeightPool:
    """Who makes which weights, who waits for them, and who inherits from whom.

    Deterministic where trials run one after the other: what there is follows from the trials before.
    """

    stage: Pretraining
    space: SearchSpace
    directory: Path
    journal: Journal
    _made: dict[int, _Made] = field(default_factory=dict)
    _making: dict[str, int] = field(default_factory=dict)
    _waiting: dict[str, list[int]] = field(default_factory=dict)

    def restore(self, trials: Iterable[Trial]) -> None:
        """Goes back to where the journal ends."""
        for trial in trials:
            record = record_of(self.journal, trial.id)
            if record is not None:
                self._made[trial.id] = _Made(self._own(trial), record["key"], record["donor"])

    def begin(self, trial: Trial) -> Start | None:
        """What a trial begins with; None where another one is making the weights that it is to start from."""
        made = self._made.get(trial.id)
        if made is None or not (self._is_there(made.key) or made.donor is None or self._is_there(made.donor)):
            made = self._planned(trial)
        if self._making.get(made.key, trial.id) != trial.id:
            self._waiting.setdefault(made.key, []).append(trial.id)
            return None
        self._made[trial.id] = made
        self.journal.set(name_of_record(trial.id), {"key": made.key, "donor": made.donor})
        if self._is_there(made.key):
            return Start(weights=self._read(made.key))
        self._making[made.key] = trial.id
        return Start(donor=None if made.donor is None else self._read(made.donor))

    def arrived(self, trial: Trial, weights: np.ndarray) -> list[int]:
        """Keeps the weights that a trial has made; returns the trials that waited for them."""
        path = path_of(self.directory, self._made[trial.id].key)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, weights)
        self._drop_old()
        return self.ended(trial)

    def ended(self, trial: Trial) -> list[int]:
        """A trial makes no weights any more, whether it has or not; returns those that waited for it."""
        made = self._made.get(trial.id)
        if made is None or self._making.get(made.key) != trial.id:
            return []
        del self._making[made.key]
        return self._waiting.pop(made.key, [])

    def _planned(self, trial: Trial) -> _Made:
        own = self._own(trial)
        for made in self._earlier(trial):
            if made.architecture == own and (self._is_there(made.key) or made.key in self._making):
                return made
        donor = self._donor(own, trial) if self.stage.section.inherit else None
        return _Made(own, self.stage.key(own, trial.seed, donor), donor)

    def _donor(self, own: Architecture, trial: Trial) -> str | None:
        there = [made for made in self._earlier(trial) if self._is_there(made.key)]
        found = nearest(own, [made.architecture for made in there], self.space.table)
        return None if found is None else there[found].key

    def _earlier(self, trial: Trial) -> Iterator[_Made]:
        return (made for number, made in sorted(self._made.items()) if number < trial.id)

    def _own(self, trial: Trial) -> Architecture:
        """The architecture without what the recipe chose beside it."""
        space, architecture = self.space, Architecture(trial.architecture)
        while isinstance(space, WrappedSpace):
            space, architecture = space.space, space.own(architecture)
        return architecture

    def _is_there(self, key: str) -> bool:
        return path_of(self.directory, key).is_file()

    def _read(self, key: str) -> np.ndarray:
        return np.fromfile(path_of(self.directory, key), dtype=np.uint8)

    def _drop_old(self) -> None:
        """Removes the weights that no trial has used for longest."""
        used = {made.key: number for number, made in sorted(self._made.items())}
        there = sorted((key for key in used if self._is_there(key)), key=used.__getitem__)
        for key in there[: -self.stage.section.keep]:
            path_of(self.directory, key).unlink()


def with_pretraining(
    evaluation: Evaluation,
    resolved: ResolvedConfig,
    corpus: Corpus | None,
    strategy: Strategy,
    directory: Path,
    journal: Journal,
) -> tuple[Evaluation, WeightPool | None]:
    """Add the pre-training of candidates to an evaluation, where the config asks for it.

    Args:
        evaluation: What every trial goes through.
        resolved: The config of the search.
        corpus: The unlabelled texts; None where nothing is pre-trained.
        strategy: The strategy, which must not bring weights of its own.
        directory: The run directory, where weights are kept.
        journal: The journal of the run.

    Returns:
        The evaluation, and the pool of pre-trained weights; the same evaluation and None without pre-training.

    Raises:
        ConfigError: As :func:`make_stage` and :func:`check_candidates`.
    """
    section = resolved.sections.pretraining
    if corpus is None or section is None or section.of != "candidates":
        return evaluation, None
    stage = make_stage(resolved, corpus, evaluation.space)
    check_candidates(stage, evaluation.space, strategy, resolved.sections.seed)
    return replace(evaluation, pretraining=stage), WeightPool(stage, evaluation.space, directory, journal)
