"""Write the trained model of a trial as an ONNX folder, after it has passed the gates."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from nas_meta.config.problem import episode_shape, load_tasks, make_space
from nas_meta.core.files import make_public, refuse_occupied
from nas_meta.errors import ConfigError, nearest
from nas_meta.evaluation.calibration import CALIBRATION
from nas_meta.journal.run import Run
from nas_meta.models.onnx.forms import NONE, QUANTIZATIONS, check_packages
from nas_meta.models.profiling import LatencySettings
from nas_meta.outputs.classifier.torch_model import parts_of_folder
from nas_meta.outputs.export.exported_model import CONFIG
from nas_meta.outputs.export.folder import export
from nas_meta.outputs.export.sentence_transformer import on_unit_sphere
from nas_meta.outputs.onnx.card import gate_lines, onnx_card
from nas_meta.outputs.onnx.description import TOKENIZER
from nas_meta.outputs.onnx.learner import comparison_of
from nas_meta.outputs.onnx.model import write_model
from nas_meta.tasks.episodes import episodes

KEPT = (TOKENIZER, "tokenizer_config.json", "preprocessor_config.json", CALIBRATION, CONFIG)  # of the torch export


def export_onnx(
    run: Run, folder: str | Path, trial_id: int | None = None, quantization: str = NONE, tables: bool = True,
    report: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """Write the trained model of a trial as an ONNX folder, which needs onnxruntime and tokenizers alone.

    Args:
        run: The run.
        folder: New or empty folder.
        trial_id: ID of the trial; by default the best trial.
        quantization: ``none``, ``int8`` or ``int8-static``.
        tables: Whether a quantisation includes the embedding tables.
        report: Called with each line of what was measured.

    Returns:
        The folder.

    Raises:
        ConfigError: A package is missing, or the model or its learner cannot be exported.
        RunError: The weights were not kept, the folder is not empty, or the graph gives other embeddings.
    """
    folder = Path(folder)
    _check(folder, quantization)
    with tempfile.TemporaryDirectory(prefix="nas-meta-") as temporary:
        source = export(run, Path(temporary) / "torch", trial_id)
        reference = parts_of_folder(source, "cpu", allow_plugins=True)  # the run's own plugins were allowed
        comparison_of(reference)  # refuses a learner before anything takes time
        target = Path(temporary) / "onnx"
        target.mkdir()
        for name in KEPT:
            if (source / name).is_file():
                shutil.copy(source / name, target / name)
        space, seed = make_space(run.config), run.config.sections.seed
        tasks = load_tasks(run.config, space)
        shape, count = episode_shape(run.config, tasks=tasks), run.config.sections.evaluation.test_episodes
        tests = list(episodes(tasks["meta-test"], shape, seed, count))
        settings = LatencySettings(**run.config.sections.latency.model_dump(exclude={"models"}))
        gates = write_model(reference, target, tasks, tests, quantization, tables, settings)
        trial = run.best if trial_id is None else run.trial(trial_id)
        architecture = space.canonical(trial.architecture)
        config = run.config.at(architecture, space.pooling(architecture)).sections
        unit = on_unit_sphere(reference.learner.options)
        (target / "README.md").write_text(
            onnx_card(run, trial, space, config, folder.name, unit, gates), encoding="utf-8"
        )
        make_public(target)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(target, folder, dirs_exist_ok=True)
    for line in gate_lines(gates) if report is not None else ():
        report(line)
    return folder


def _check(folder: Path, quantization: str) -> None:
    """Check what needs no model: the packages, the folder and the quantisation."""
    if quantization not in QUANTIZATIONS:
        raise ConfigError(f"--quantize is '{quantization}'; {nearest(quantization, QUANTIZATIONS)}")
    check_packages("--format onnx")
    refuse_occupied(folder)
