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
from nas_meta.models.profiling import LatencySettings, parameters
from nas_meta.outputs.classifier.adaptation import ModelParts
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.outputs.onnx.description import INT8, NONE, STATIC
from nas_meta.outputs.onnx.gates import Latency, cpu, has_vnni
from nas_meta.outputs.onnx.model import Gates, write_model
from nas_meta.tasks.episodes import episodes
from nas_meta.tasks.tokenization import load_tokenizer

CONFIG = {
    "space": {"name": "bert-subnet", "model": "starter:minilm", "heads": [0.5, 1.0], "ffn": [0.5, 1.0]},
    "tasks": {"source": "icd10", "ways": 5, "shots": 1, "queries": 15},
    "learner": {"name": "protonet"},
}
EPISODES = 600
FORMS = (
    ("ONNX, float32", NONE, True), ("ONNX, INT8", INT8, True), ("ONNX, INT8, embedding tables in float32", INT8, False),
    ("ONNX, INT8 with static scales", STATIC, True),
)  # fmt: skip
KEPT, HEADS, NEURONS = (0, 2, 4, 5), 6, 768  # of a sub-network; MiniLM has 6 layers of 12 heads and 1,536 neurons
SMALL = {f"layer{i}.keep": i in KEPT for i in range(6)} | {
    f"layer{i}.{part}": size for i in KEPT for part, size in (("heads", HEADS), ("ffn", NEURONS))
}


def rows(name: str, parts: ModelParts, problem: Problem, seconds: float) -> list[tuple[str, Gates]]:
    """Export a model in every form."""
    tests = list(episodes(problem.tasks["meta-test"], problem.shape, 0, EPISODES))
    found = []
    for form, quantization, tables in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            parts.preparation.tokenizer.save_pretrained(folder)
            settings = LatencySettings(seconds=seconds)
            gates = write_model(parts, Path(folder), problem.tasks, tests, quantization, tables, settings)
            found.append((f"{name}: {form}", gates))
    return found


def line(name: str, size: int, of: int, latency: Latency, torch_latency: Latency, accuracy: str) -> str:
    """Return a row of the table."""
    return (
        f"| {name} | {size / 1e6:.1f} MB, {of / size:.2f}× | {accuracy} | {1e3 * latency.median:.2f} / "
        f"{1e3 * latency.p95:.2f} ms | {torch_latency.median / latency.median:.2f}× |"
    )


def table(found: list[tuple[str, Gates]], name: str, params: int) -> list[str]:
    """Return the rows of one model: that of torch first."""
    judged = next(gates.paired for _, gates in found if gates.paired is not None)
    first = found[0][1]
    lines = [
        line(f"{name}: torch, float32", 4 * params, 4 * params, first.torch, first.torch, f"{judged.reference:.2f}")
    ]
    for form, gates in found:
        accuracy = f"embeddings within {gates.difference:.0e}"
        if gates.paired is not None:
            accuracy = f"{gates.paired.accuracy:.2f}: {gates.paired.difference:+.2f} ± {gates.paired.half:.2f}"
        lines.append(line(form, gates.bytes, gates.float_bytes, gates.onnx, gates.torch, accuracy))
    return lines


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    torch.manual_seed(0)
    config = resolve(CONFIG)
    problem = load_problem(config)
    evaluation = make_evaluation(config, problem.space, problem.tasks, problem.shape, cpus=0)
    print("\n".join([
        "| model | size of the weights | accuracy | latency, median / p95 | speed |", "| --- | --- | --- | --- | --- |",
    ]))  # fmt: skip
    preparation = Preparation("text", load_tokenizer(problem.space.tokenizer), config.sections.tasks.max_tokens)
    learner = evaluation.learner
    for name, model in (
        ("MiniLM", problem.space.reference()),
        ("4 layers, half as wide", problem.space.build(problem.space.canonical(SMALL))),
    ):
        encoder = evaluation.encoder(model).eval()
        parts = ModelParts(encoder, learner, preparation, problem.shape.ways, "protonet")
        found = rows(name, parts, problem, seconds)
        print("\n".join(table(found, name, parameters(model))), flush=True)
    processor, flags = cpu()
    print(f"{processor}, {'with' if has_vnni(flags) else 'without'} VNNI ({' '.join(flags)})")


if __name__ == "__main__":
    main()
