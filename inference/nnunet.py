"""nnU-Net models as a predictor: verify and load once, stay warm, predict arrays.

The way an image takes is nnU-Net's own: crop to the nonzero box, clip and scale by the plans'
intensities, tiles, largest score. torch and nnunetv2 are imported here, in `nnunet_folder` and in
`tiles` only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from inference.catalog import ModelCard, verify
from inference.nnunet_folder import Intensities, LoadedPart, load_part
from inference.pipeline import Predictor, Progress, no_progress
from inference.tiles import label_image

__all__ = ["NnunetPredictor", "Predictor", "pick_device"]


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

    def predict(
        self, image: NDArray[np.float32], progress: Progress = no_progress
    ) -> NDArray[np.uint8]:
        """Return the model's labels [z, y, x] for `image` [z, y, x] in HU, all parts merged.

        Where two parts find something, the later one counts.
        """
        merged = np.zeros(image.shape, dtype=np.uint8)
        for index, part in enumerate(self._parts):

            def on_tile(done: int, total: int, index: int = index) -> None:
                progress("predict", (index + done / total) / len(self._parts))

            found = part.labels[
                predict_part(part, image, self.card.step_size, self.device, on_tile)
            ]
            np.copyto(merged, found, where=found > 0)
        progress("predict", 1.0)
        return merged


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
) -> NDArray[np.uint8]:
    """Return the part's own labels [z, y, x] for `image` [z, y, x] in HU."""
    labels = np.zeros(image.shape, dtype=np.uint8)
    box = nonzero_box(image)
    cropped = normalise(image[box], part.intensities).transpose(part.axes)
    found = label_image(
        part.network,
        torch.from_numpy(np.ascontiguousarray(cropped)).to(device),
        patch=part.patch,
        classes=len(part.labels),
        step_size=step_size,
        on_tile=on_tile,
    )
    labels[box] = found.cpu().numpy().transpose(np.argsort(part.axes))
    return labels


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
