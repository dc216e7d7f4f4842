"""INT8 weights for an ONNX graph.

Matrix products are quantised with onnxruntime's own tools: signed weights with one scale per output channel, in 7 of
the 8 bits (``reduce_range``). CPUs without VNNI add two products of 8 bits in a register of 16, which saturates with
weights of 8 bits (2 · 255 · 127 > 32,767) and not with those of 7 (2 · 255 · 64): the same file then gives the same
numbers on either. Unsigned weights would be an alternative, but are half as fast where the CPU has VNNI.

Embedding tables, the larger part of a small encoder, are quantised here with one scale per row (Gather, Cast, Mul),
because onnxruntime gives a whole table one scale.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_meta.models.onnx.forms import STATIC

LEAST_TABLE = 1024  # numbers of an embedding table that is worth quantising
LARGEST = 127  # of a signed 8-bit integer


def quantize(source: Path, target: Path, mode: str, tables: bool, feeds: Sequence[dict[str, np.ndarray]]) -> None:
    """Write a graph with INT8 weights.

    Args:
        source: Graph in float32.
        target: File to write.
        mode: ``int8``, where activations are scaled at run time, or ``int8-static``, where their scales are fixed.
        tables: Whether the embedding tables are quantised, too.
        feeds: Batches of inputs that ``int8-static`` calibrates the scales on, by minimum and maximum.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    model = onnx.load(str(source))
    del model.graph.value_info[:]  # shapes of tensors that the quantisation replaces
    if tables:
        quantize_tables(model)
    prepared = target.with_suffix(".prepared")
    onnx.save(model, str(prepared))
    options: dict[str, Any] = {
        "op_types_to_quantize": ["MatMul"], "per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8,
        "nodes_to_quantize": weight_products(model), "extra_options": {"MatMulConstBOnly": True},
    }  # fmt: skip
    logging.disable(logging.WARNING)  # advice to optimise the graph first, which the session does
    try:
        if mode == STATIC:
            quantize_static(
                str(prepared), str(target), _Feeds(feeds), quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8, **options,
            )  # fmt: skip
        else:
            quantize_dynamic(str(prepared), str(target), **options)
    finally:
        logging.disable(logging.NOTSET)
        prepared.unlink()


def weight_products(model: Any) -> list[str]:
    """Return the names of the matrix products with weights, without a head after the pooling.

    A head, a single product of which little is gained, is the last one of the graph, and its input has two dimensions.

    Args:
        model: The ``onnx.ModelProto``; unnamed nodes get names.
    """
    from onnx import shape_inference

    known = {tensor.name for tensor in model.graph.initializer}
    inferred = shape_inference.infer_shapes(model).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*inferred.value_info, *inferred.output)}
    products = []
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{i}"
        if node.op_type == "MatMul" and node.input[1] in known and ranks.get(node.output[0]) != 2:
            products.append(node.name)
    return products


def quantize_tables(model: Any) -> None:
    """Quantise the embedding tables of a graph, one scale per row.

    ``Gather(table, ids)`` becomes ``Cast(Gather(integers, ids)) * Gather(scales, ids)``.

    Args:
        model: The ``onnx.ModelProto``, changed in place.
    """
    from onnx import TensorProto, helper, numpy_helper

    initial = {tensor.name: tensor for tensor in model.graph.initializer}
    used = [name for node in model.graph.node for name in node.input]
    nodes = []
    for i, node in enumerate(model.graph.node):
        tensor = initial.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if (
            tensor is None or axis != 0 or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2
            or np.prod(tensor.dims) < LEAST_TABLE or used.count(tensor.name) > 1
        ):  # fmt: skip
            nodes.append(node)
            continue
        table, prefix = numpy_helper.to_array(tensor), f"table_{i}"
        scales = np.maximum(np.abs(table).max(1, keepdims=True), 1e-12).astype(np.float32) / LARGEST
        integers = np.clip(np.rint(table / scales), -LARGEST, LARGEST).astype(np.int8)
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(integers, f"{prefix}_integers"),
                numpy_helper.from_array(scales, f"{prefix}_scales"),
            ]
        )
        model.graph.initializer.remove(tensor)
        ids = node.input[1]
        nodes += [
            helper.make_node("Gather", [f"{prefix}_integers", ids], [f"{prefix}_rows"], f"{prefix}_gather"),
            helper.make_node("Gather", [f"{prefix}_scales", ids], [f"{prefix}_row_scales"], f"{prefix}_gather_scales"),
            helper.make_node("Cast", [f"{prefix}_rows"], [f"{prefix}_float"], f"{prefix}_cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{prefix}_float", f"{prefix}_row_scales"], list(node.output), f"{prefix}_scale"),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


class _Feeds:
    """The batches that a static quantisation is calibrated on, as onnxruntime reads them."""

    def __init__(self, feeds: Sequence[dict[str, np.ndarray]]):
        self.feeds: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch; None after the last one."""
        return next(self.feeds, None)
