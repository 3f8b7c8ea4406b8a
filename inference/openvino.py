"""A network of torch as OpenVINO runs it: up to twice as fast on the CPU, in single precision.

OpenVINO is imported here only, and never its usage statistics: this program calls nobody.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch


def _openvino() -> Any:
    # Its converter reports each import to its maker, unless the module for that is missing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def computes_in_bf16() -> bool:
    """Whether this processor computes in bfloat16, so that it is quicker than single precision.

    Raises:
        ImportError: OpenVINO is not installed, or not for this machine.
        RuntimeError: it knows nothing of this processor.
    """
    return "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Converted:
    """A network as OpenVINO's model, to be compiled for tiles of any shape that it can take."""

    def __init__(self, network: torch.nn.Module, shape: Sequence[int]) -> None:
        """Trace `network`, which is in evaluation mode and on the CPU.

        Args:
            network: float32 [1, 1, z, y, x] to logits [1, class, z, y, x].
            shape: z, y, x of a tile; a small one is traced sooner.

        Raises:
            ImportError: OpenVINO is not installed, or not for this machine.
            RuntimeError: it has no counterpart of the network.
        """
        openvino = _openvino()
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: only shapes vary, nothing depends on them
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                network, torch.zeros((1, 1, *shape)), check_trace=False
            )
            decoder = TorchScriptPythonDecoder(traced, skip_freeze=True)
        frontend = FrontEndManager().load_by_framework("pytorch")
        self._model = frontend.convert(frontend.load(decoder))
        self._core = openvino.Core()

    def compile(
        self, shape: Sequence[int], threads: int | None, precision: Literal["f32", "bf16"] = "f32"
    ) -> Compiled:
        """Compile for tiles of one shape.

        Args:
            shape: z, y, x of the tiles.
            threads: to compute with; None leaves OpenVINO's choice.
            precision: of the layers. bf16 is twice as quick on processors that compute in it.

        Raises:
            RuntimeError: OpenVINO cannot run the network.
        """
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._model.reshape([1, 1, *shape])
        return Compiled(self._core.compile_model(self._model, "CPU", settings))


class Compiled:
    """A network for tiles of one shape."""

    def __init__(self, model: Any) -> None:
        """Take OpenVINO's compiled model."""
        self._model = model
        self._request: Any = None

    def __call__(self, tile: torch.Tensor) -> torch.Tensor:
        """Return the logits [1, class, z, y, x] of a tile; the next call overwrites them."""
        if self._request is None:
            self._request = self._model.create_infer_request()
        result = self._request.infer({0: np.ascontiguousarray(tile.numpy())}, share_outputs=True)
        return torch.from_numpy(result[0])

    def release(self) -> None:
        """Give back what the layers between hold (1.6 GiB in the 3 mm network), not the weights."""
        self._request = None
        self._model.release_memory()
