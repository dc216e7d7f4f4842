"""ONNX graphs against torch: size, accuracy on the same episodes, and latency of MiniLM and of a sub-network of it.

    python -m benchmarks.onnx [SECONDS]

The models are untrained: 5-way 1-shot episodes of the ICD-10-CM meta-test classes, prototypes. SECONDS is the measuring
time of one latency (5), for which the machine should have nothing else to do.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import Problem, load_problem
from nas_meta.config.resolved import resolve
from nas_meta.models.onnx.forms import INT8, NONE, STATIC
from nas_meta.models.profiling import LatencySettings, parameters
from nas_meta.outputs.classifier.adaptation import ModelParts
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.outputs.onnx.gates import Latency, cpu, has_vnni, latencies
from nas_meta.outputs.onnx.model import Gates, write_model
from nas_meta.tasks.episodes import episodes
from nas_meta.tasks.tokenization import load_tokenizer

CONFIG = {
    "space": {"name": "bert-subnet", "model": "starter:minilm", "heads": [0.5, 1.0], "ffn": [0.5, 1.0]},
    "tasks": {"source": "icd10", "ways": 5, "shots": 1, "queries": 10},
    "learner": {"name": "protonet"},
}
EPISODES = 600
COLUMNS = ("model", "size of the weights", "accuracy", "latency, median / p95", "speed")
FORMS = (
    ("ONNX, float32", NONE, True), ("ONNX, INT8", INT8, True), ("ONNX, INT8, embedding tables in float32", INT8, False),
    ("ONNX, INT8 with static scales", STATIC, True),
)  # fmt: skip
KEPT, HEADS, NEURONS = (0, 2, 4, 5), 6, 768  # of a sub-network; MiniLM has 6 layers of 12 heads and 1,536 neurons
SMALL = {f"layer{i}.keep": i in KEPT for i in range(6)} | {
    f"layer{i}.{part}": size for i in KEPT for part, size in (("heads", HEADS), ("ffn", NEURONS))
}


def exported(parts: ModelParts, problem: Problem, folder: Path) -> list[tuple[str, Path, Gates]]:
    """Export a model in every form, and judge it on the meta-test episodes."""
    tests = list(episodes(problem.tasks["meta-test"], problem.shape, 0, EPISODES))
    found = []
    for i, (form, quantization, tables) in enumerate(FORMS):
        target = folder / str(i)
        parts.preparation.tokenizer.save_pretrained(target)
        settings = LatencySettings(seconds=0.1)
        found.append((form, target, write_model(parts, target, problem.tasks, tests, quantization, tables, settings)))
    return found


def line(name: str, size: int, of: int, latency: Latency, torch_latency: Latency, accuracy: str) -> str:
    """Return a row of the table."""
    return (
        f"| {name} | {size / 1e6:.1f} MB, {of / size:.2f}× | {accuracy} | {1e3 * latency.median:.2f} / "
        f"{1e3 * latency.p95:.2f} ms | {torch_latency.median / latency.median:.2f}× |"
    )


def table(name: str, parts: ModelParts, found: list[tuple[str, Path, Gates]], seconds: float) -> list[str]:
    """Return the rows of one model, torch first, and measure its latencies."""
    lines, judged = [], next(gates.paired for _, _, gates in found if gates.paired is not None)
    for form, folder, gates in found:
        torch_latency, latency = latencies(parts, folder, LatencySettings(seconds=seconds))
        if not lines:
            size, accuracy = 4 * parameters(parts.encoder.model), f"{judged.reference:.2f} %"
            lines.append(line(f"{name}: torch, float32", size, size, torch_latency, torch_latency, accuracy))
        accuracy = f"embeddings within {gates.difference:.0e}"
        if gates.paired is not None:
            accuracy = f"{gates.paired.accuracy:.2f} %, {gates.paired.difference:+.2f} ± {gates.paired.half:.2f}"
        lines.append(line(f"{name}: {form}", gates.bytes, gates.float_bytes, latency, torch_latency, accuracy))
    return lines


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    torch.manual_seed(0)
    config = resolve(CONFIG)
    problem = load_problem(config)
    evaluation = make_evaluation(config, problem.space, problem.tasks, problem.shape, cpus=0)
    preparation = Preparation("text", load_tokenizer(problem.space.tokenizer), config.sections.tasks.max_tokens)
    models = {"MiniLM": problem.space.reference(), "sub-network": problem.space.build(problem.space.canonical(SMALL))}
    with tempfile.TemporaryDirectory() as folder:
        judged = []
        for name, model in models.items():
            encoder = evaluation.encoder(model).eval()
            parts = ModelParts(encoder, evaluation.learner, preparation, problem.shape.ways, "protonet")
            judged.append((name, parts, exported(parts, problem, Path(folder) / name)))
        # All latencies at the end, so that the machine can be left alone for the minute that they take.
        print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        for name, parts, found in judged:
            print("\n".join(table(name, parts, found, seconds)), flush=True)
    processor, flags = cpu()
    print(f"{processor}, {'with' if has_vnni(flags) else 'without'} VNNI ({' '.join(flags)})")


if __name__ == "__main__":
    main()
