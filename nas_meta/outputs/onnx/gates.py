"""What an ONNX folder is judged by before it is written: parity, paired accuracy, bytes and latency."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas_meta.models.onnx.export import example
from nas_meta.models.onnx.session import open_session
from nas_meta.models.profiling import LatencySettings, interval95
from nas_meta.outputs.classifier.adaptation import ModelParts, embeddings
from nas_meta.outputs.classifier.parts import Parts
from nas_meta.outputs.onnx.description import GRAPH
from nas_meta.outputs.onnx.graph import finished
from nas_meta.outputs.onnx.session import OnnxParts
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.examples import IMAGE, TEXT, Example
from nas_meta.tasks.pool import Pool

TOLERANCE = 1e-4  # of an embedding in float32, relative to the largest of its numbers if that is above 1
EXAMPLES = 100  # that parity is checked on
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
WARM_UP, FEWEST = 5, 20  # passes that are not measured, and passes that are measured at least


@dataclass(frozen=True)
class Latency:
    """Time of one call, in seconds.

    Attributes:
        median: The median.
        p95: The 95th percentile.
    """

    median: float
    p95: float


@dataclass(frozen=True)
class Paired:
    """Accuracies on the same episodes, in percent.

    Attributes:
        reference: Mean of the torch model.
        accuracy: Mean of the ONNX model.
        difference: Mean difference per episode; negative if the ONNX model is worse.
        half: Half the width of the 95% interval of the difference.
        episodes: Number of episodes.
    """

    reference: float
    accuracy: float
    difference: float
    half: float
    episodes: int


def examples_of(pool: Pool, indices: Sequence[int] | np.ndarray) -> list[Example]:
    """Return examples of a pool as a user has them.

    Args:
        pool: The pool.
        indices: Which examples.

    Returns:
        Texts, images, or tuples of both.
    """
    if pool.modality == TEXT:
        return [pool.texts[i] for i in indices]
    images: np.ndarray = pool.pixels  # type: ignore[assignment]
    return [images[i] if pool.modality == IMAGE else (images[i], pool.texts[i]) for i in indices]


def parity(reference: ModelParts, parts: OnnxParts, examples: Sequence[Example]) -> float:
    """Compare the embeddings of two models, tokenizers included.

    Args:
        reference: The torch model.
        parts: The ONNX model in float32.
        examples: The examples.

    Returns:
        The largest difference, relative to the largest absolute number of the reference if that is above 1.
    """
    expected = finished(reference, embeddings(reference, examples, 64, None)).float().cpu().numpy()
    found = parts.embed(examples, 64, None)
    difference = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
    return difference if np.isfinite(difference) else float("inf")


def paired(reference: Parts, parts: Parts, pool: Pool, episodes: Sequence[Episode]) -> Paired:
    """Score two models on the same episodes.

    Args:
        reference: The torch model.
        parts: The ONNX model.
        pool: The examples.
        episodes: The episodes.

    Returns:
        Accuracies and their paired difference.
    """
    used = np.unique(np.concatenate([task.indices for task in episodes]))
    position = np.full(len(pool), -1)
    position[used] = np.arange(len(used))
    examples = examples_of(pool, used)
    scores = [_scores(each, each.embed(examples, 64, None), position, episodes) for each in (reference, parts)]
    difference = scores[1] - scores[0]
    return Paired(
        float(scores[0].mean()), float(scores[1].mean()), float(difference.mean()), interval95(difference),
        len(episodes),
    )  # fmt: skip


def _scores(parts: Parts, z: np.ndarray, position: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
    """Return the accuracy in each episode, in percent."""
    found = []
    for task in episodes:
        support, query = z[position[task.support.ravel()]], z[position[task.query.ravel()]]
        logits = parts.logits(support, task.support_labels, len(task.support), query, None)
        found.append(100 * float((logits.argmax(1) == task.labels).mean()))
    return np.array(found)


def latencies(reference: ModelParts, folder: Path, settings: LatencySettings) -> tuple[Latency, Latency]:
    """Measure the torch model and the ONNX model in turn, so that both meet the same load of the machine.

    Args:
        reference: The torch model, on the CPU.
        folder: Folder of the ONNX model.
        settings: Batch, tokens, threads and duration.

    Returns:
        The latency of the torch model, and of the ONNX model.
    """
    inputs = _inputs(reference, settings)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    session, encoder = open_session(folder / GRAPH, settings.threads), reference.encoder.eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with torch.inference_mode():
            return _in_turn((lambda: encoder(**inputs), lambda: session.run(None, arrays)), settings.seconds)
    finally:
        torch.set_num_threads(threads)


def _in_turn(calls: Sequence[Callable[[], object]], seconds: float) -> tuple[Latency, Latency]:
    """Time calls one after the other, again and again."""
    for call in calls:
        for _ in range(WARM_UP):
            call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + 2 * seconds
    while time.perf_counter() < end or len(times[0]) < FEWEST:
        for call, found in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            found.append(time.perf_counter() - started)
    first, second = (Latency(float(np.median(t)), float(np.percentile(t, 95))) for t in times)
    return first, second


def _inputs(parts: ModelParts, settings: LatencySettings) -> Mapping[str, torch.Tensor]:
    """Return inputs of the batch and the length that the settings name."""
    inputs = {}
    for name, tensor in example(parts.preparation.modality, parts.preparation.image_shape).items():
        shape = tensor.shape[1:] if name == "pixel_values" else (settings.tokens,)
        inputs[name] = torch.ones(settings.batch, *shape, dtype=tensor.dtype)
    return inputs


def cpu() -> tuple[str, list[str]]:
    """Return the name of the CPU and its flags that matter for INT8; without one of VNNI, INT8 gains less."""
    name, flags = platform.processor() or platform.machine(), list[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return name, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() == "flags":
            return name, [flag for flag in FLAGS if flag in value.split()]
    return name, flags


def has_vnni(flags: Sequence[str]) -> bool:
    """Return whether a CPU multiplies 8-bit integers without saturation, and fast.

    Args:
        flags: What :func:`cpu` returned.
    """
    return any("vnni" in flag for flag in flags)
