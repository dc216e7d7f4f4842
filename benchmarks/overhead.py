"""Engine overhead per trial: nas-meta against bare Ray, optuna, Ray Tune and NNI, with trials that only sleep.

A trial sleeps for 50 ms, so 200 of them take at least 5 s on 2 workers. All workers are started before the clock is:
starting them is a cost of the search rather than of a trial, and the benchmark ``startup`` measures it.

usage: python -m benchmarks.run overhead
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import stand_in
from benchmarks.table import Table

SLEEP = 0.05
WORKERS = 2
TRIALS = 200
TRIALS_WHEN_SLOW = 20  # for an engine that takes more than a second per trial


@dataclass(frozen=True)
class Sleeper(stand_in.StandIn):
    """Stand-in for the evaluation whose trials sleep for 50 ms."""

    def trial(self, *_: object) -> object:
        from nas_meta.evaluation.progress import Result

        time.sleep(SLEEP)
        return Result({"accuracy": 0.5, "accuracy_ci95": 0.0, "params": 1, "flops": 1})


def whole_search() -> tuple[float, int]:
    """A search as users run it, with NNI's evolution, the journal and TensorBoard; only the trials are replaced.

    Returns:
        Seconds from the end of every worker's first trial to the end of the last trial, and the number of trials that
        ended in this period.
    """
    config = {
        "space": {"name": "bert-subnet"},
        "tasks": {"source": "botocore"},
        "budget": {"trials": TRIALS + WORKERS},
        "resources": {"workers": WORKERS},
    }
    with tempfile.TemporaryDirectory() as folder:
        trials = stand_in.search(config, Path(folder) / "run", Sleeper()).trials
    finished = sorted(trial.finished for trial in trials)
    return finished[-1] - finished[WORKERS - 1], TRIALS


def engine_and_journal() -> tuple[float, int]:
    """The engine without a search; the journal stores each start, and each result before the next trial starts."""
    from nas_meta.execution.ray_engine import RayEngine, Resources
    from nas_meta.journal.database import Journal
    from nas_meta.journal.records import Trial

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal.create(Path(folder))
        engine = RayEngine(Sleeper(), Resources(WORKERS, 1))
        for key in range(WORKERS):
            engine.submit(-key, "trial")
        for _ in engine.events():
            continue
        waiting = [Trial(id=i, architecture={"x": i}, seed=0, fidelity=0) for i in range(TRIALS)]

        def start_one() -> None:
            trial = waiting.pop()
            engine.submit(trial, "trial")
            journal.write(trial)

        started = time.perf_counter()
        for _ in range(WORKERS):
            start_one()
        for event in engine.events():
            if event is not None and event.done:
                journal.write(replace(event.key, status="completed", metrics=event.value.metrics))
                if waiting:
                    start_one()
        taken = time.perf_counter() - started
        engine.close()
        journal.close()
    return taken, TRIALS


def bare_ray() -> tuple[float, int]:
    """Plain Ray tasks, two at a time, without a journal."""
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    task = ray.remote(num_cpus=1)(lambda: time.sleep(SLEEP))
    ray.get([task.remote() for _ in range(WORKERS * 2)])
    started = time.perf_counter()
    ray.get([task.remote() for _ in range(TRIALS)])
    taken = time.perf_counter() - started
    ray.shutdown()
    return taken, TRIALS


def optuna_threads(storage: bool) -> tuple[float, int]:
    """optuna's ``optimize(n_jobs=2)``.

    Args:
        storage: whether trials are stored in SQLite rather than in memory.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        time.sleep(SLEEP)
        return 0.5

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/study.db" if storage else None
        study = optuna.create_study(storage=url, sampler=optuna.samplers.RandomSampler(seed=0))
        started = time.perf_counter()
        study.optimize(objective, n_trials=TRIALS, n_jobs=WORKERS)
        return time.perf_counter() - started, TRIALS


def ray_tune(reuse: bool) -> tuple[float, int]:
    """Ray Tune, which by default starts a process for every trial.

    Args:
        reuse: whether actors are reused for further trials.
    """
    import os

    import ray
    from ray import tune

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    trials = TRIALS if reuse else TRIALS_WHEN_SLOW

    class Trainable(tune.Trainable):
        def setup(self, config: dict) -> None:
            self.config = config

        def step(self) -> dict:
            time.sleep(SLEEP)
            return {"accuracy": 0.5, "done": True}

        def reset_config(self, config: dict) -> bool:
            self.config = config
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> dict:
            return {}

        def load_checkpoint(self, checkpoint: dict) -> None:
            self.config = checkpoint

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            Trainable,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=WORKERS, reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        started = time.perf_counter()
        tuner.fit()
        taken = time.perf_counter() - started
    ray.shutdown()
    return taken, trials


def nni_sequential() -> tuple[float, int]:
    """NNI's engine that needs no server: runs one trial at a time in its own process."""
    import nni
    from nni.mutable import Categorical, MutableDict
    from nni.nas.evaluator import FunctionalEvaluator
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import RawFormatModelSpace
    from nni.nas.strategy import Random

    def evaluate(_model: object) -> None:
        time.sleep(SLEEP)
        nni.report_final_result(0.5)

    class Model:
        """Result of freezing a sample; NNI needs an object that supports weak references."""

    class Space(MutableDict):
        def __init__(self) -> None:
            super().__init__({f"x{i}": Categorical([0, 1, 2, 3], label=f"x{i}") for i in range(10)})

        def freeze(self, sample: dict) -> Model:
            super().freeze(sample)
            return Model()

    space = RawFormatModelSpace(Space(), FunctionalEvaluator(evaluate))
    engine = SequentialExecutionEngine(max_model_count=TRIALS)
    started = time.perf_counter()
    Random()(space, engine)
    return time.perf_counter() - started, TRIALS


ENGINES: dict[str, tuple[Callable[[], tuple[float, int]], int]] = {
    "**nas-meta**: Ray actors, evolution, journal, TensorBoard": (whole_search, WORKERS),
    "nas-meta, engine and journal only": (engine_and_journal, WORKERS),
    "bare Ray tasks, nothing written to disk": (bare_ray, WORKERS),
    "optuna, 2 threads, in memory": (lambda: optuna_threads(False), WORKERS),
    "optuna, 2 threads, SQLite storage": (lambda: optuna_threads(True), WORKERS),
    "Ray Tune, `reuse_actors=True`": (lambda: ray_tune(True), WORKERS),
    "Ray Tune, default": (lambda: ray_tune(False), WORKERS),
    "NNI's sequential engine (one worker)": (nni_sequential, 1),
}


def measure() -> Table:
    """Time, parallel efficiency and overhead per trial, one row per engine."""
    rows = []
    for name, (run, workers) in ENGINES.items():
        seconds, trials = run()
        ideal = trials * SLEEP / workers
        rows.append([
            name, str(trials), f"{seconds:.2f} s", f"{ideal / seconds:.3f}",
            f"{1000 * (seconds - ideal) / trials:.1f} ms",
        ])  # fmt: skip
    return Table(
        ("engine", "trials", "time", "parallel efficiency", "overhead per trial"),
        rows,
        f"Each trial sleeps for {1000 * SLEEP:.0f} ms. The ideal time is the total sleep divided by the number of "
        "workers. Efficiency is the ideal time divided by the measured time; overhead is the measured time beyond the "
        "ideal, divided by the number of trials.",
    )
