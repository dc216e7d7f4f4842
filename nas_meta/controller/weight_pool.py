"""The pre-trained weights of a run, on the driver: computed once, then shared by every trial that starts from them.

Weights are files ``RUN/pretrained/KEY.safetensors``. The journal records two keys for each trial: that of its weights,
and that of the donor from which its pre-training inherited. A rerun of the trial therefore starts like the first run.

For example, trials 1 and 2 have the same architecture, trial 3 a different one, and all three start together:

1. Trial 1 acquires the weights of key K. They do not exist, so it computes them.
2. Trial 2 needs K, too, and waits. Trial 3 computes weights of its own key in the meantime.
3. Trial 1 finishes its pre-training: the pool stores K and returns ``[2]``, the trials that can start now. If trial 1
   ends without weights, the pool returns ``[2]``, too; trial 2 then computes K itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas_meta.controller.start import Start
from nas_meta.core.files import read_array, write_atomically
from nas_meta.evaluation.pretraining.stage import Pretraining
from nas_meta.evaluation.pretraining.weight_inheritance import nearest
from nas_meta.journal.database import Journal
from nas_meta.journal.pretraining_record import name_of_record, path_of, record_of
from nas_meta.journal.records import Trial
from nas_meta.models.state import damage_of_weights
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import WrappedSpace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _WeightsRecord:
    """The architecture of a trial in the unwrapped space, the key of its weights, and the key of their donor."""

    architecture: Architecture
    key: str
    donor: str | None


@dataclass
class WeightPool:
    """Decides which trial computes which weights, which trials wait for them, and which weights are inherited.

    At most one running trial computes the weights of a key; others that need them wait. If trials run one after the
    other, every decision follows from the earlier trials alone.

    Attributes:
        stage: The pre-training of candidates.
        space: The search space of the trials.
        directory: The run directory.
        journal: The journal, open for writing.
    """

    stage: Pretraining
    space: SearchSpace
    directory: Path
    journal: Journal
    _records: dict[int, _WeightsRecord] = field(default_factory=dict)  # by trial id
    _producers: dict[str, int] = field(default_factory=dict)  # key -> the trial that computes its weights
    _waiting: dict[str, list[int]] = field(default_factory=dict)  # key -> trials that wait for its weights

    def restore(self, trials: Iterable[Trial]) -> None:
        """Restore the records of earlier trials from the journal, and delete damaged weights, to compute them again.

        Args:
            trials: The trials of the journal.

        Raises:
            RunError: A record in the journal is invalid.
        """
        for file in path_of(self.directory, "").parent.glob("*.safetensors"):
            damage = damage_of_weights(file)
            if damage is not None:
                log.warning("%s is damaged (%s); its weights are computed again", file, damage)
                file.unlink()
        for trial in trials:
            record = record_of(self.journal, trial.id)
            if record is not None:
                self._records[trial.id] = _WeightsRecord(self._base_architecture(trial), record["key"], record["donor"])

    def acquire(self, trial: Trial) -> Start | None:
        """Return the weights that a trial starts from, and record their keys in the journal.

        Args:
            trial: The trial that is about to start.

        Returns:
            The weights; None if another trial is computing them. The trial is then returned by :meth:`store` or
            :meth:`release` when it can start.
        """
        record = self._records.get(trial.id)
        if record is None or not (self._exists(record.key) or record.donor is None or self._exists(record.donor)):
            record = self._plan(trial)
        if self._producers.get(record.key, trial.id) != trial.id:
            self._waiting.setdefault(record.key, []).append(trial.id)
            return None
        self._records[trial.id] = record
        self.journal.set(name_of_record(trial.id), {"key": record.key, "donor": record.donor})
        if self._exists(record.key):
            return Start(weights=self._read(record.key))
        self._producers[record.key] = trial.id
        return Start(donor=None if record.donor is None else self._read(record.donor))

    def store(self, trial: Trial, weights: np.ndarray) -> list[int]:
        """Save the weights that a trial has computed, and delete those that exceed ``pretraining.keep``.

        Args:
            trial: The trial that has finished its pre-training.
            weights: Its pre-trained weights (safetensors).

        Returns:
            The ids of the trials that waited for the weights.
        """
        path = path_of(self.directory, self._records[trial.id].key)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, weights)
        self._drop_old()
        return self.release(trial)

    def release(self, trial: Trial) -> list[int]:
        """Note that a trial no longer computes weights, whether it has finished them or not.

        Args:
            trial: A trial that has ended, or that has finished its pre-training.

        Returns:
            The ids of the trials that waited for it; empty if it computed no weights.
        """
        record = self._records.get(trial.id)
        if record is None or self._producers.get(record.key) != trial.id:
            return []
        del self._producers[record.key]
        return self._waiting.pop(record.key, [])

    def _plan(self, trial: Trial) -> _WeightsRecord:
        """Reuse the weights of an earlier trial with the same architecture, or plan new ones from the nearest donor."""
        architecture = self._base_architecture(trial)
        for record in self._earlier(trial):
            if record.architecture == architecture and (self._exists(record.key) or record.key in self._producers):
                return record
        donor = self._donor(architecture, trial) if self.stage.section.inherit else None
        return _WeightsRecord(architecture, self.stage.key(architecture, trial.seed, donor), donor)

    def _donor(self, architecture: Architecture, trial: Trial) -> str | None:
        """Return the key of the existing weights whose architecture is nearest; None if there are none."""
        candidates = [record for record in self._earlier(trial) if self._exists(record.key)]
        index = nearest(architecture, [record.architecture for record in candidates], self.space.table)
        return None if index is None else candidates[index].key

    def _earlier(self, trial: Trial) -> Iterator[_WeightsRecord]:
        return (record for number, record in sorted(self._records.items()) if number < trial.id)

    def _base_architecture(self, trial: Trial) -> Architecture:
        """Return the architecture without the choices that wrappers of the space add, such as hyperparameters."""
        space, architecture = self.space, Architecture(trial.architecture)
        while isinstance(space, WrappedSpace):
            space, architecture = space.space, space.inner(architecture)
        return architecture

    def _exists(self, key: str) -> bool:
        return path_of(self.directory, key).is_file()

    def _read(self, key: str) -> np.ndarray:
        return read_array(path_of(self.directory, key))

    def _drop_old(self) -> None:
        """Delete the least recently used weights until at most ``pretraining.keep`` files are left."""
        last_user = {record.key: number for number, record in sorted(self._records.items())}
        existing = sorted((key for key in last_user if self._exists(key)), key=last_user.__getitem__)
        for key in existing[: -self.stage.section.keep]:
            path_of(self.directory, key).unlink()
