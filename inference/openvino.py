"""A network of torch as OpenVINO runs it: up to twice as fast on the CPU, in single precision.

OpenVINO is imported here only, and never its usage statistics: this program calls nobody.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch


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
        # Its converter reports each import to its maker, unless the module for that is missing.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        import openvino
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
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Compile for tiles of one shape.

        Args:
            shape: z, y, x of the tiles.
            threads: to compute with; None leaves OpenVINO's choice.
            precision: of the layers. bf16 is quicker on processors that compute in it, but moved
                0.05 % of the labels of the demonstration model, so that Dice of structures above
                5 mL fell to 0.98: nothing in this program asks for it but the benchmark.

        Returns:
            Float32 [1, 1, z, y, x] to float32 logits [1, class, z, y, x]. A result is overwritten
            by the next call.

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
        request = self._core.compile_model(self._model, "CPU", settings).create_infer_request()

        def run(tile: torch.Tensor) -> torch.Tensor:
            result = request.infer({0: np.ascontiguousarray(tile.numpy())}, share_outputs=True)
            return torch.from_numpy(result[0])

        return run
