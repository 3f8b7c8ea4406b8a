"""nnU-Net models as a predictor: verify and load once, stay warm, predict arrays.

The way an image takes is nnU-Net's own: crop to the nonzero box, clip and scale by the plans'
intensities, tiles, largest score. On a GPU the grids' way is there too, and only labels come back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray

from inference import resident
from inference.catalog import ModelCard, verify
from inference.engines import fast_network, half_on_cuda, has_half
from inference.nnunet_folder import LoadedPart, load_part
from inference.normalisation import body_box, nonzero_box, normalise
from inference.openvino import Compiled
from inference.pipeline import (
    DEFAULT,
    Options,
    Orientation,
    Predictor,
    Progress,
    no_progress,
    wanted_labels,
)
from inference.tiles import Aggregation, Network, label_image

__all__ = ["NnunetPredictor", "Predictor", "pick_device"]

log = logging.getLogger(__name__)

CPU = torch.device("cpu")

SPLIT_ABOVE_VOXELS = {"softmax": 256 * 256 * 900, "logits": 512 * 512 * 900}
SPLIT_ABOVE_LENGTH = 200
SPLIT_MARGIN = 20
"""TotalSegmentator cuts images above these into three along z; at version 2 it raised the first."""


class NnunetPredictor:
    """The model of a card, loaded. Not for use by two threads at once."""

    def __init__(self, card: ModelCard, device: str = "cpu", threads: int | None = None) -> None:
        """Verify and load all parts.

        Args:
            card: of the model.
            device: `cpu`, `cuda:N`, or `auto` (the first CUDA device, else the CPU).
            threads: of torch on the CPU, for the whole process; None leaves torch's choice.

        Raises:
            WeightsError: a file is missing, differs from the card, or is no model this can run.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.card = card
        self.device = pick_device(device)
        verify(card)
        self._parts = [load_part(part, card, self.device) for part in card.parts]
        if self.device.type == "cuda":  # as tensor cores want it; later it must not move any more
            for part in self._parts:
                part.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._fast: dict[tuple[int, bool], Network] = {}
        self.is_resident = self.device.type == "cuda"
        """Whether `segment_resident` is the quick way."""
        self.has_half = has_half(self.device)
        """Whether 16-bit floats make it quicker here."""

    def predict(
        self,
        image: NDArray[np.float32],
        progress: Progress = no_progress,
        options: Options = DEFAULT,
    ) -> NDArray[np.uint8]:
        """Return the model's labels [z, y, x] for `image` [z, y, x] in HU, all parts merged.

        Where two parts find something, the later one counts.
        """
        return self._merge(torch.from_numpy(image), progress, options).cpu().numpy()

    def segment_resident(
        self,
        volume: NDArray[np.int16],
        orientation: Orientation,
        spacing_mm: Sequence[float],
        progress: Progress,
        options: Options,
    ) -> NDArray[np.uint8] | None:
        """Return the labels [i, j, k] of a volume; between the two nothing leaves the device.

        None on the CPU, and where the device's memory is too short for it.
        """
        if not self.is_resident:
            return None
        try:
            progress("resample", 0.0)
            image = resident.zoom_in(
                volume,
                orientation,
                spacing_mm,
                self.card.spacing_mm,
                self.card.zoom_order,
                self.device,
            )
            progress("resample", 1.0)
            labels = self._merge(image, progress, options)
            progress("restore", 0.0)
            found = resident.zoom_back(labels, orientation, volume.shape)
            progress("restore", 1.0)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            log.warning("DEVICE_MEMORY_SHORT", extra={"fields": {"volume": list(volume.shape)}})
            return None
        return found

    @torch.inference_mode()
    def _merge(self, image: torch.Tensor, progress: Progress, options: Options) -> torch.Tensor:
        """Return the model's labels, uint8 [z, y, x] on the device of `image`, all parts merged."""
        wanted = wanted_labels(self.card, options)
        chosen = [n for n, part in enumerate(self._parts) if not wanted.isdisjoint(part.labels)]
        box = body_box(image) if options.body_crop else (slice(None),) * 3
        cropped = image[box]
        pieces = [(slice(None), slice(None))]
        if options.mode == "exact" and is_split(tuple(cropped.shape), self.card):
            pieces = list(thirds(len(cropped)))
        labels = torch.zeros(image.shape, dtype=torch.uint8, device=image.device)
        merged = labels[box]
        steps = len(pieces) * len(chosen)
        for step, (index, piece) in enumerate((n, piece) for n in chosen for piece in pieces):
            cut, kept = piece

            def on_tile(done: int, total: int, step: int = step) -> None:
                progress("predict", (step + done / total) / steps)

            own = self._labels(index, cropped[cut], options, on_tile).to(image.device)
            found = own if kept == slice(None) else own[kept.start - cut.start :]
            _merge_into(merged[kept], found, self._parts[index].labels)
        kept_labels = torch.tensor([label in wanted for label in range(256)], device=image.device)
        for plane in merged:
            plane *= kept_labels[plane.long()]
        progress("predict", 1.0)
        return labels

    def _labels(
        self,
        index: int,
        image: torch.Tensor,
        options: Options,
        on_tile: Callable[[int, int], None],
    ) -> torch.Tensor:
        """Return the labels of one part, its own."""
        part = self._parts[index]
        exact = options.mode == "exact"
        half = self.has_half and self.device.type in options.half_on
        network = part.network if exact else self._quick(index, half=half, thrifty=options.thrifty)
        own = predict_part(
            part,
            image,
            options.step_size or self.card.step_size,
            self.device,
            on_tile,
            network=network,
            aggregation=self.card.aggregation,
            as_nnunet=exact,
            tf32=not exact and half,
            thrifty=options.thrifty,
        )
        if isinstance(network, Compiled) and len(self._parts) > 1:
            network.release()  # five networks' layers would not fit side by side
        return own

    def _quick(self, index: int, *, half: bool, thrifty: bool) -> Network:
        """Return the quickest network of a part; thriftily, the loaded one as it is."""
        part = self._parts[index]
        if thrifty:
            on_gpu = self.device.type == "cuda"
            return half_on_cuda(part.network) if half and on_gpu else part.network
        if (index, half) not in self._fast:
            threads = torch.get_num_threads()
            self._fast[index, half] = fast_network(part, self.device, threads, half=half)
        return self._fast[index, half]


def _merge_into(merged: torch.Tensor, found: torch.Tensor, table: NDArray[np.uint8]) -> None:
    """Write the labels of a part over those of the parts before it, where it finds something.

    Args:
        merged: model labels [z, y, x]; changed in place.
        found: the part's own labels; planes beyond those of `merged` are left out.
        table: part label -> model label.
    """
    model_label = torch.from_numpy(table).to(found.device)
    for plane, own in zip(merged, found, strict=False):  # an index takes 8 bytes a voxel
        labels = model_label[own.long()]
        torch.where(labels > 0, labels, plane, out=plane)


def is_split(shape: tuple[int, ...], card: ModelCard) -> bool:
    """Whether TotalSegmentator cuts an image [z, y, x] of the model's grid into three."""
    above = int(np.prod(shape)) > SPLIT_ABOVE_VOXELS[card.aggregation]
    return above and shape[0] > SPLIT_ABOVE_LENGTH and len(card.parts) > 1


def thirds(length: int) -> Iterator[tuple[slice, slice]]:
    """Return the three pieces along z that TotalSegmentator predicts, and what it keeps of each."""
    third, margin = length // 3, SPLIT_MARGIN
    yield slice(0, third + margin), slice(0, third)
    yield slice(third + 1 - margin, 2 * third + margin), slice(third, 2 * third)
    yield slice(2 * third + 1 - margin, length), slice(2 * third, length)


def pick_device(device: str) -> torch.device:
    """Return the torch device of `cpu`, `cuda:N` or `auto`.

    Raises:
        ValueError: none of these, or there is no such device here.
    """
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if device != "cpu" and (kind != "cuda" or not number.isdecimal()):
        raise ValueError(f"device {device!r}: expected cpu, cuda:N or auto")
    if kind == "cuda" and int(number) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: there are {torch.cuda.device_count()} CUDA devices")
    return torch.device(device)


@torch.inference_mode()
def predict_part(
    part: LoadedPart,
    image: torch.Tensor,
    step_size: float,
    device: torch.device,
    on_tile: Callable[[int, int], None],
    *,
    network: Network | None = None,
    aggregation: Aggregation = "softmax",
    as_nnunet: bool = False,
    tf32: bool = False,
    thrifty: bool = False,
) -> torch.Tensor:
    """Return the part's own labels, uint8 [z, y, x], for `image`.

    Args:
        part: its network is used if `network` is None.
        image: HU on the model's grid, float32 [z, y, x], on any device.
        step_size: of the tiles.
        device: of the network.
        on_tile: see `label_image`.
        network: the same network on another engine.
        aggregation: see `label_image`.
        as_nnunet: see `label_image`.
        tf32: let CUDA round what it multiplies to 10 bits of fraction, as cuDNN does by itself.
        thrifty: keep the scores of all classes out of the device's memory from the first.
    """
    box = nonzero_box(image)
    tensor = normalise(image[box], part.intensities).permute(part.axes).contiguous()

    def run(where: torch.device, sums_on: torch.device) -> torch.Tensor:
        own = part.network if where == device else deepcopy(part.network).to(where)
        return label_image(
            own if network is None or where != device else network,
            tensor.to(where),
            patch=part.patch,
            classes=len(part.labels),
            step_size=step_size,
            on_tile=on_tile,
            aggregation=aggregation,
            as_nnunet=as_nnunet,
            sums_on=sums_on,
        )

    # Without `enabled` cuDNN would be off; with `benchmark` the same image would not always give
    # the same labels.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=tf32):
        found = _stepping_down(run, device, thrifty=thrifty)
    labels = torch.zeros(image.shape, dtype=torch.uint8, device=found.device)
    labels[box] = found.permute([part.axes.index(axis) for axis in range(3)])
    return labels


def _stepping_down(
    run: Callable[[torch.device, torch.device], torch.Tensor],
    device: torch.device,
    *,
    thrifty: bool = False,
) -> torch.Tensor:
    """Return what `run` does on the device; with the sums on the host; all on the host.

    Thriftily, the first of these is left out on a GPU.

    The scores of all classes take most of a device's memory, and the host has more of it.
    """
    steps = [(device, device)]
    if device.type == "cuda":
        steps = [*([] if thrifty else steps), (device, CPU), (CPU, CPU)]
    for network_on, sums_on in steps[:-1]:
        try:
            return run(network_on, sums_on)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            fields = {"network_on": str(network_on), "sums_on": str(sums_on)}
            log.warning("DEVICE_MEMORY_SHORT", extra={"fields": fields})
    return run(*steps[-1])
