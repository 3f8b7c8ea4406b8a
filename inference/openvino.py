"""A network of torch as OpenVINO runs it: two to three times as fast on the CPU.

bfloat16 where the processor computes in it, else single precision. OpenVINO's parts are imported
here only, and never its usage statistics: this program calls nobody.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def compile_network(
    network: torch.nn.Module, shape: Sequence[int], threads: int | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile a network for tiles of one shape.

    Args:
        network: in evaluation mode, on the CPU.
        shape: z, y, x of the tiles.
        threads: to compute with; None leaves OpenVINO's choice.

    Returns:
        Float32 [1, 1, z, y, x] to float32 logits [1, class, z, y, x]. A result is overwritten by
        the next call.

    Raises:
        ImportError: OpenVINO is not installed, or not for this machine.
        RuntimeError: it cannot run the network.
    """
    # Its converter reports each import to its maker, unless the module for that is missing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros((1, 1, *shape))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: the shape is fixed, so nothing is lost
        decoder = TorchScriptPythonDecoder(network, example_input=(example,))
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape([1, 1, *shape])
    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if _has_bfloat16(core) else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(tile: torch.Tensor) -> torch.Tensor:
        result = request.infer({0: np.ascontiguousarray(tile.numpy())}, share_outputs=True)
        return torch.from_numpy(result[0])

    return run


def _has_bfloat16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
