"""nnU-Net models as a predictor: verify and load once, stay warm, predict arrays.

The way an image takes is nnU-Net's own: crop to the nonzero box, clip and scale by the plans'
intensities, tiles, largest score. torch and nnunetv2 are imported here, in `nnunet_folder`, in
`engines` and in `tiles` only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from inference.catalog import ModelCard, verify
from inference.engines import fast_network, has_half
from inference.nnunet_folder import Intensities, LoadedPart, load_part
from inference.openvino import Compiled
from inference.pipeline import DEFAULT, Options, Predictor, Progress, no_progress, wanted_labels
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
        self._fast: dict[tuple[int, bool], Network] = {}
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
        wanted = np.zeros(256, dtype=np.bool_)
        wanted[list(wanted_labels(self.card, options))] = True
        chosen = [n for n, part in enumerate(self._parts) if wanted[part.labels].any()]
        pieces = [(slice(None), slice(None))]
        if options.mode == "exact" and is_split(image.shape, self.card):
            pieces = list(thirds(len(image)))
        merged = np.zeros(image.shape, dtype=np.uint8)
        steps = len(pieces) * len(chosen)
        for step, (index, piece) in enumerate((n, piece) for n in chosen for piece in pieces):
            cut, kept = piece

            def on_tile(done: int, total: int, step: int = step) -> None:
                progress("predict", (step + done / total) / steps)

            found = self._labels(index, image[cut], options, on_tile)
            inside = found if kept == slice(None) else found[kept.start - cut.start :]
            target = merged[kept]
            np.copyto(target, inside[: len(target)], where=inside[: len(target)] > 0)
        merged[~wanted[merged]] = 0
        progress("predict", 1.0)
        return merged

    def _labels(
        self,
        index: int,
        image: NDArray[np.float32],
        options: Options,
        on_tile: Callable[[int, int], None],
    ) -> NDArray[np.uint8]:
        """Return the model's labels that one part finds."""
        part = self._parts[index]
        exact = options.mode == "exact"
        half = self.has_half and self.device.type in options.half_on
        if not exact and (index, half) not in self._fast:
            self._fast[index, half] = fast_network(
                part, self.device, torch.get_num_threads(), half=half
            )
        network = part.network if exact else self._fast[index, half]
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
        )
        if isinstance(network, Compiled) and len(self._parts) > 1:
            network.release()  # five networks' layers would not fit side by side
        return part.labels[own]


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
    image: NDArray[np.float32],
    step_size: float,
    device: torch.device,
    on_tile: Callable[[int, int], None],
    *,
    network: Network | None = None,
    aggregation: Aggregation = "softmax",
    as_nnunet: bool = False,
    tf32: bool = False,
) -> NDArray[np.uint8]:
    """Return the part's own labels [z, y, x] for `image` [z, y, x] in HU.

    Args:
        part: its network is used if `network` is None.
        image: HU on the model's grid.
        step_size: of the tiles.
        device: of the network.
        on_tile: see `label_image`.
        network: the same network on another engine.
        aggregation: see `label_image`.
        as_nnunet: see `label_image`.
        tf32: let CUDA round what it multiplies to 10 bits of fraction, as cuDNN does by itself.
    """
    box = nonzero_box(image)
    cropped = normalise(image[box], part.intensities).transpose(part.axes)
    tensor = torch.from_numpy(np.ascontiguousarray(cropped))

    def run(where: torch.device, sums_on: torch.device) -> torch.Tensor:
        own = part.network.to(where)
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
        found = _stepping_down(run, device)
    part.network.to(device)
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[box] = found.cpu().numpy().transpose(np.argsort(part.axes))
    return labels


def _stepping_down(
    run: Callable[[torch.device, torch.device], torch.Tensor], device: torch.device
) -> torch.Tensor:
    """Return what `run` does on the device; with the sums on the host; all on the host.

    The scores of all classes take most of a device's memory, and the host has more of it.
    """
    steps = [(device, device)]
    if device.type == "cuda":
        steps += [(device, CPU), (CPU, CPU)]
    for network_on, sums_on in steps[:-1]:
        try:
            return run(network_on, sums_on)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            fields = {"network_on": str(network_on), "sums_on": str(sums_on)}
            log.warning("DEVICE_MEMORY_SHORT", extra={"fields": fields})
    return run(*steps[-1])


def nonzero_box(image: NDArray[np.float32]) -> tuple[slice, ...]:
    """Return the smallest box with all voxels that are not 0 HU; all of an image of zeros.

    nnU-Net crops to it before anything else. In CT, where air is -1000, it is the whole image
    except where padding of 0 was added.
    """
    box = []
    for axis in range(image.ndim):
        others = tuple(other for other in range(image.ndim) if other != axis)
        hits = np.flatnonzero((image != 0).any(axis=others))
        box.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(None))
    return tuple(box)


def normalise(image: NDArray[np.float32], by: Intensities) -> NDArray[np.float32]:
    """Return a clipped and scaled copy, in single precision throughout, as nnU-Net does it."""
    scaled = np.clip(image, np.float32(by.lower), np.float32(by.upper))
    scaled -= np.float32(by.mean)
    scaled /= np.float32(max(by.sd, 1e-8))
    return scaled
