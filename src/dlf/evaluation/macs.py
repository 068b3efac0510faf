"""Multiply-accumulates of networks, counted on the sizes that an image gives them.

Those of convolutions and matrix products, as is the custom; what is done to each number alone is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlf.extras import need

Shape = tuple[int, ...]

_PRODUCTS: dict[str, Callable[[Shape, Shape, Shape], int]] = {
    "Conv": lambda x, weight, y: prod(y) * prod(weight[1:]),
    "ConvTranspose": lambda x, weight, y: prod(x) * prod(weight[1:]),
    "Gemm": lambda a, b, y: prod(a) * y[1],
    "MatMul": lambda a, b, y: prod(y) * a[-1],
    # of ONNX Runtime: both of its products, without what a mask adds to the keys
    "MultiHeadAttention": lambda query, key, y: 2 * prod(y) * key[1],
}
"""Shapes of the two factors and of the product -> multiply-accumulates, by operator of ONNX."""


def graph_macs(data: bytes, inputs: Mapping[str, NDArray[Any]]) -> int:
    """Return the multiply-accumulates of one run of an ONNX graph.

    The graph runs once more and gives the shapes of all factors, for they depend on its inputs.
    data: the file, without subgraphs.

    Raises:
        MissingExtra: the package onnx is not installed.
    """
    onnx = need("onnx", "torch")
    from dlf.codec.onnx_backend import open_session

    model = onnx.load_from_string(data)
    graph = model.graph
    products = [node for node in graph.node if node.op_type in _PRODUCTS]
    tensors = dict.fromkeys(name for node in products for name in (*node.input[:2], node.output[0]))
    if not tensors:
        return 0
    del graph.output[:]
    for name in tensors:
        graph.node.append(onnx.helper.make_node("Shape", [name], [f"shape of {name}"]))
        kind = onnx.TensorProto.INT64
        graph.output.append(onnx.helper.make_tensor_value_info(f"shape of {name}", kind, None))
    session = open_session(model.SerializeToString())
    values: list[NDArray[np.int64]] = session.run([f"shape of {name}" for name in tensors], dict(inputs))
    shapes = {name: tuple(shape.tolist()) for name, shape in zip(tensors, values, strict=True)}
    return sum(
        _PRODUCTS[node.op_type](shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]])
        for node in products
    )


@contextmanager
def torch_macs() -> Iterator[Callable[[], int]]:
    """Count what torch does within it; gives the function that tells the multiply-accumulates so far."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def linear(x: Shape, *args: Any, out_shape: Shape, **options: Any) -> int:
        return 2 * prod(x) * out_shape[-1]

    def attention(query: Shape, key: Shape, value: Shape, *args: Any, **options: Any) -> int:
        return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])

    ours = {
        torch.ops.mkldnn._linear_pointwise: linear,
        torch.ops.quantized.linear_dynamic: linear,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    }
    with FlopCounterMode(display=False, custom_mapping=ours) as counter:
        yield lambda: counter.get_total_flops() // 2
