"""The memory of this machine's GPUs, by NVIDIA's management library (NVML). Loads no model.

The library comes with the driver. A machine without it has no GPU for this node, and that
is no fault. The role `work` asks, which has the driver; it tells with its signs of life.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU."""

    index: int
    """NVML's, by place on the bus; CUDA_VISIBLE_DEVICES does not change it."""
    name: str
    total_bytes: int
    used_bytes: int
    """By whatever process."""


class Gpus:
    """Asks NVML, which is begun once: on some machines that takes seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nvml: Any = None
        self._fault = ""

    def read(self) -> tuple[Gpu, ...]:
        """Return the GPUs as they are now; none where there is no driver, or it does not answer."""
        with self._lock:
            try:
                import pynvml
            except ModuleNotFoundError:
                self._say("nvidia-ml-py is not installed")
                return ()
            try:
                return self._read(pynvml)
            except pynvml.NVMLError as error:
                self._nvml = None
                is_absent = isinstance(
                    error, pynvml.NVMLError_LibraryNotFound | pynvml.NVMLError_DriverNotLoaded
                )
                self._say("" if is_absent else str(error))
                return ()

    def _read(self, pynvml: Any) -> tuple[Gpu, ...]:
        if self._nvml is None:
            pynvml.nvmlInit()
            self._nvml = pynvml
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = pynvml.nvmlDeviceGetName(handle)
            found.append(
                Gpu(
                    index=index,
                    name=name.decode() if isinstance(name, bytes) else str(name),
                    total_bytes=int(memory.total),
                    used_bytes=int(memory.used),
                )
            )
        self._say("")
        return tuple(found)

    def _say(self, fault: str) -> None:
        """Log a fault once, not with every look."""
        if fault and fault != self._fault:
            log.warning("GPU_UNREADABLE", extra={"fields": {"detail": fault}})
        self._fault = fault
