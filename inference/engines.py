"""Which engine runs a network in fast mode: torch on CUDA, OpenVINO or torch on the CPU.

An engine is used only if it agrees with torch in single precision, on this machine, on a tile of
noise. What it may differ by was fixed before it was measured. 16-bit floats are for the caller to
choose: how many labels they move depends on the model, and on how large its voxels are.
"""

from __future__ import annotations

import logging
import time
from typing import Literal

import numpy as np
import torch

from inference.nnunet_folder import LoadedPart
from inference.openvino import Converted, computes_in_bf16
from inference.tiles import Network

log = logging.getLogger(__name__)

SCORE_BOUND = 0.05
"""99.9th percentile of the absolute difference of a probability from single precision's."""

MOST_STRIDE = 32
"""Of nnU-Net's networks: five halvings."""


def has_half(device: torch.device) -> bool:
    """Whether the device has an engine that gains by 16-bit floats."""
    if device.type == "cuda":
        return True
    try:
        return computes_in_bf16()
    except (ImportError, RuntimeError):
        return False


def fast_network(
    part: LoadedPart, device: torch.device, threads: int | None, *, half: bool = False
) -> Network:
    """Return the fastest way to run the network of `part` that agrees with torch.

    Args:
        part: on `device`.
        device: of the network.
        threads: of the CPU; None leaves it to the engine.
        half: compute in 16-bit floats (float16 on CUDA, bfloat16 on the CPU) where the device has
            them.
    """
    if device.type == "cuda":
        return on_cuda(part, half=half)
    started = time.perf_counter()
    try:
        precision: Literal["f32", "bf16"] = "bf16" if half and computes_in_bf16() else "f32"
        small = smallest_tile(part)
        model = Converted(part.network, small)
        error = score_error(part.network, model.compile(small, threads, precision), small)
        if error <= SCORE_BOUND:
            network = model.compile(part.patch, threads, precision)
            fields = {
                "precision": precision,
                "error": error,
                "seconds": round(time.perf_counter() - started, 2),
            }
            log.info("OPENVINO_USED", extra={"fields": fields})
            return network
        log.warning("OPENVINO_DISAGREES", extra={"fields": {"error": error}})
    except (ImportError, RuntimeError) as error:
        log.warning("OPENVINO_NOT_USED", extra={"fields": {"why": str(error)[:200]}})
    return part.network


def on_cuda(part: LoadedPart, *, half: bool) -> Network:
    """Return the network of `part`, which is on a CUDA device, as one graph of kernels.

    A tile is hundreds of kernels, which take less time to run than to be asked for one by one.
    """
    network = half_on_cuda(part.network) if half else part.network
    try:
        return Graph(network, part.patch, next(part.network.parameters()).device)
    except RuntimeError as error:  # whatever cannot be captured runs all the same
        log.warning("CUDA_GRAPH_NOT_USED", extra={"fields": {"why": str(error)[:200]}})
        torch.cuda.empty_cache()
        return network


class Graph:
    """A network on CUDA, its kernels recorded once and asked for together from then on.

    They read the weights where they lay in memory then: the network must never be moved.
    """

    @torch.inference_mode()
    def __init__(self, network: Network, patch: tuple[int, ...], device: torch.device) -> None:
        """Record `network` for tiles of one shape.

        Raises:
            RuntimeError: it does what cannot be recorded, or memory is short.
        """
        with torch.cuda.device(device):
            self._tile = torch.zeros((1, 1, *patch), device=device)
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # cuDNN looks for its kernels before the recording
                for _ in range(2):
                    network(self._tile)
            torch.cuda.current_stream().wait_stream(aside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._logits = network(self._tile)

    def __call__(self, tile: torch.Tensor) -> torch.Tensor:
        """Return the logits [1, class, z, y, x] of a tile; the next call overwrites them."""
        self._tile.copy_(tile)
        self._graph.replay()
        return self._logits


def half_on_cuda(network: torch.nn.Module) -> Network:
    """Return `network` in half precision, channels last, as tensor cores want it."""

    def run(tile: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.float16):
            logits: torch.Tensor = network(tile.contiguous(memory_format=torch.channels_last_3d))
        return logits

    return run


def smallest_tile(part: LoadedPart) -> tuple[int, int, int]:
    """Return about half the patch: lengths that the network can halve as often, to two or more."""
    lengths = []
    for length in part.patch:
        factor = min(length & -length, MOST_STRIDE)  # the largest power of two in it
        half = length // 2 // factor * factor
        lengths.append(half if half >= 2 * factor else length)
    return (lengths[0], lengths[1], lengths[2])


@torch.inference_mode()
def score_error(exact: Network, fast: Network, shape: tuple[int, ...]) -> float:
    """Return the 99.9th percentile of the probabilities' absolute difference on noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, 1, *(length // 2 for length in shape)), generator=generator)
    tile = torch.nn.functional.interpolate(noise, size=shape, mode="trilinear")
    scores = [torch.softmax(network(tile)[0].float(), dim=0) for network in (exact, fast)]
    # Every seventh value stands for all: sorting a hundred classes takes longer than they took.
    return float(np.quantile((scores[0] - scores[1]).abs().numpy().ravel()[::7], 0.999))
