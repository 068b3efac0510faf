"""What codecs cost: operations against numbers worked out by hand, and processes of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlf.codec.bundle import ModelBundle
from dlf.evaluation import complexity, cost, macs
from dlf.evaluation.codecs.formats import open_format
from dlf.evaluation.codecs.specs import parse_codec
from dlf.records import UInt8

Picture = Callable[[int, int], UInt8]


def test_operations_of_a_graph() -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = {
        "grouped": (8, 2, 3, 3),
        "up": (8, 5, 2, 2),
        "square": (5, 7),
        "gemm": (6, 7),
    }
    nodes = [
        # 4 channels in 2 groups, stride 2, no border: 10 x 12 -> 4 x 5
        helper.make_node("Conv", ["x", "grouped"], ["a"], group=2, strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"], strides=[2, 2]),  # 8 x 10
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["c", "square"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"], axis=3),
        helper.make_node("Gemm", ["e", "gemm"], ["y"], transB=1),
    ]
    tensors = [
        helper.make_tensor(name, kind, shape, np.zeros(prod(shape), np.float32))
        for name, shape in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 4, "height", "width"])],
        [helper.make_tensor_value_info("y", kind, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    by_name = macs.graph_macs(model.SerializeToString(), {"x": np.zeros((1, 4, 10, 12), np.float32)})
    conv, up = 8 * 4 * 5 * (2 * 3 * 3), 8 * 4 * 5 * (5 * 2 * 2)
    assert by_name == conv + up + 8 * 10 * 5 * 7 + 8 * 10 * 7 * 6


# what loads a model is silent about it, see `dlf.torch_engine.loading`
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.torch
def test_operations_in_torch() -> None:
    torch = pytest.importorskip("torch")
    from dlf.torch_engine.linear import linear_factory

    linear = torch.nn.Linear(6, 10)
    query, key = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8)
    conv = torch.nn.Conv2d(4, 8, 3, groups=2, stride=2)
    work: dict[str, tuple[Callable[[], object], int]] = {
        "linear": (lambda: linear(torch.zeros(3, 4, 6)), 3 * 4 * 6 * 10),
        "conv": (lambda: conv(torch.zeros(1, 4, 10, 12)), 8 * 4 * 5 * (2 * 3 * 3)),
        "attention": (
            lambda: torch.nn.functional.scaled_dot_product_attention(query, key, key),
            2 * 3 * 5 * 7 * (8 + 8),
        ),
        "both": (lambda: (linear(torch.zeros(1, 6)), linear(torch.zeros(1, 6))), 2 * 60),
        "sum": (lambda: query + query, 0),
    }
    for precision in ("float32", "bfloat16", "int8"):
        make = linear_factory(precision, "cpu")
        if make is not None and (
            precision != "int8" or "fbgemm" in torch.backends.quantized.supported_engines
        ):
            packed = make(linear.weight.detach(), linear.bias.detach())
            work[precision] = (lambda packed=packed: packed(torch.zeros(3, 6))), 3 * 6 * 10
    for name, (do, wanted) in work.items():
        with torch.inference_mode(), macs.torch_macs() as count:
            do()
        assert count() == wanted, name


@pytest.mark.torch
def test_graphs_and_torch_agree(tiny_bundle: Path, picture: Picture) -> None:
    torch = pytest.importorskip("torch")
    from dlf.nn.build import TINY
    from dlf.nn.model import Dlf

    rgb = picture(300, 520)  # padded to 320 x 544
    encode = cost.encode_cost(cost.Work(parse_codec(f"dlf:{tiny_bundle}"), 50), rgb).cost
    assert encode.macs is not None
    assert set(encode.macs) == set(encode.stages) == {"analysis", "prior", "context"}
    model = Dlf(TINY).eval().requires_grad_(False)
    with torch.inference_mode(), macs.torch_macs() as count:
        z, feature = model.encoder(torch.zeros(1, 3, 320, 544), model.grid(320, 544))
        model.details.analyse(feature, torch.tensor([50.0]))
        model.quantize.nearest(z)
    assert encode.macs["analysis"] == pytest.approx(count(), rel=0.01)


def test_a_format(picture: Picture) -> None:
    rgb, work = picture(64, 80), cost.Work(parse_codec("webp"), 30)
    encode = cost.encode_cost(work, rgb)
    assert encode.data == open_format("webp").encode(Image.fromarray(rgb), 30)
    assert encode.cost.seconds > 0
    assert cost.decode_cost(work, encode.data).seconds > 0
    assert encode.cost.stages == {}
    assert encode.cost.macs is None


def test_a_folder_of_pictures_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "bpp.csv").write_text("picture,file,bpp\n")
    with pytest.raises(cost.CostError, match="no codec that runs"):
        cost.decode_cost(cost.Work(parse_codec(f"decoded:{tmp_path}"), 0), b"")


@pytest.mark.skipif(sys.platform == "win32", reason="the memory of a process is not known there")
def test_a_process_of_its_own(picture: Picture) -> None:
    much = np.ones(300_000_000, np.uint8)
    here = cost.peak_memory()
    assert here is not None
    assert here > much.size
    idle = cost.alone(cost.idle_cost, picture(8, 8)).peak
    assert idle is not None
    assert 1e7 < idle < here - 1e8
    with pytest.raises(cost.CostError, match="before its time"):
        cost.alone(os._exit, 3)


def test_networks_the_rest_and_all() -> None:
    parameters = {"analysis": 3, "prior": 1, "context": 2, "synthesis": 4}
    sizes = {name: complexity.NetworkSize(count, 10 * count) for name, count in parameters.items()}
    encode = cost.Cost(5, 100, {"analysis": 3, "prior": 1}, {"analysis": 7_000, "prior": 1_000})
    decode = cost.Cost(9, 200, {"prior": 1, "synthesis": 6}, None)
    by_name = {stage.name: stage for stage in complexity.stages(sizes, encode, decode)}
    assert [by_name["all"].parameters, by_name["all"].size] == [10, 100]
    assert [by_name["the rest"].encode_s, by_name["the rest"].decode_s] == [1, 2]
    assert [by_name["analysis"].encode_macs, by_name["synthesis"].encode_macs] == [7_000, 0]
    assert [by_name["all"].encode_macs, by_name["all"].decode_macs] == [8_000, None]
    assert [by_name["all"].encode_peak, by_name["all"].decode_peak] == [100, 200]
    unknown = complexity.stages(sizes | {"prior": complexity.NetworkSize(None, 10)}, encode, decode)[-1]
    assert unknown.parameters is None


@pytest.mark.torch
def test_parameters_in_both_forms(tiny_bundle: Path, tmp_path: Path) -> None:
    from dlf.bundles.bundle_writer import BundleSpec
    from dlf.bundles.torch_bundle import write_torch_bundle
    from dlf.nn.build import TINY_L
    from dlf.nn.model import Dlf
    from dlf.torch_engine.loading import tensors_of

    sizes = complexity.network_sizes(ModelBundle.open(tiny_bundle))
    assert set(sizes) == set(complexity.NETWORKS)
    assert all(
        size.parameters and size.size == (tiny_bundle / f"{name}.onnx").stat().st_size
        for name, size in sizes.items()
    )
    model = Dlf(TINY_L)
    write_torch_bundle(TINY_L, model.state_dict().__getitem__, tmp_path, BundleSpec("tiny-l", 99))
    sizes = complexity.network_sizes(ModelBundle.open(tmp_path))
    assert set(sizes) == {"analysis", "context", "synthesis"}
    for name, size in sizes.items():
        file = f"{name}.safetensors"
        assert size.parameters == sum(prod(shape) for shape in tensors_of(model, file).values())
        assert size.size == (tmp_path / file).stat().st_size


@pytest.mark.torch
def test_a_model_that_torch_runs(tmp_path: Path, picture: Picture) -> None:
    torch = pytest.importorskip("torch")
    from dlf.bundles.bundle_writer import BundleSpec
    from dlf.bundles.torch_bundle import write_torch_bundle
    from dlf.nn.build import TINY_L
    from dlf.nn.model import Dlf

    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = Dlf(TINY_L).state_dict()
    write_torch_bundle(TINY_L, weights.__getitem__, tmp_path, BundleSpec("tiny-l", 99))
    work = cost.Work(parse_codec(f"dlf:{tmp_path}"), 50)
    coded = cost.encode_cost(work, picture(256, 256))
    encode, decode = coded.cost, cost.decode_cost(work, coded.data)
    assert encode.macs is not None
    assert decode.macs is not None
    assert {name for name, count in encode.macs.items() if count} == {"analysis", "prior", "context"}
    assert {name for name, count in decode.macs.items() if count} == {"prior", "context", "synthesis"}
    assert encode.macs["context"] == decode.macs["context"]
