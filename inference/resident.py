"""The grids' way on a torch device: what `inference.resampling` does, with nothing but labels back.

The volume goes to the device once, in 16 bits; canonical axes, zooms and labels stay there. The
same tables, in double precision: a zoomed volume equals the host's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from inference.pipeline import Orientation
from inference.resampling import ROUNDING, nearest_table, spline_matrix, zoomed_shape

PLANES_AT_ONCE = 64


def zoom_in(
    volume: NDArray[np.int16],
    orientation: Orientation,
    spacing_mm: Sequence[float],
    target_mm: Sequence[float],
    order: int,
    device: torch.device,
) -> torch.Tensor:
    """Return `volume` on the model's grid, on the device.

    Args:
        volume: HU, [i, j, k], of any strides.
        orientation: how i, j, k become right, anterior, superior.
        spacing_mm: along x, y, z.
        target_mm: along x, y, z.
        order: of the spline.
        device: of the result.

    Returns:
        float32 [z, y, x], whole HU.
    """
    turned = volume.transpose(orientation.axes)
    order_in_memory = np.argsort(np.abs(turned.strides), kind="stable")[::-1]
    # Sent as it lies in memory; axes and directions change where that is quick.
    sent = torch.from_numpy(np.ascontiguousarray(turned.transpose(order_in_memory))).to(device)
    planes = sent.permute([int(axis) for axis in np.argsort(order_in_memory)]).permute(2, 1, 0)
    flipped = [2 - axis for axis, flip in enumerate(orientation.flipped) if flip]
    shape = zoomed_shape(turned.shape, spacing_mm, target_mm)
    along_x, along_y, along_z = (
        torch.from_numpy(np.array(spline_matrix(have, want, order))).to(device)
        for have, want in zip(turned.shape, shape, strict=True)
    )
    reduced = torch.empty((len(planes), shape[1], shape[0]), dtype=torch.float64, device=device)
    for start in range(0, len(planes), PLANES_AT_ONCE):
        part = slice(start, start + PLANES_AT_ONCE)
        samples = planes[part].to(torch.float64).contiguous()
        across = [axis for axis in flipped if axis != 0]
        if across:
            samples = samples.flip(across)
        reduced[part] = along_y @ (samples @ along_x.T)
    if 0 in flipped:
        reduced = reduced.flip(0)
    zoomed = along_z @ reduced.reshape(len(reduced), -1)
    zoomed += torch.copysign(torch.full((), ROUNDING, dtype=zoomed.dtype, device=device), zoomed)
    return zoomed.trunc_().to(torch.float32).reshape(shape[2], shape[1], shape[0])


def zoom_back(
    labels: torch.Tensor, orientation: Orientation, shape: Sequence[int]
) -> NDArray[np.uint8]:
    """Return `labels` on the source grid, in the host's memory.

    Args:
        labels: uint8 [z, y, x] on the model's grid.
        orientation: of the source grid.
        shape: of the source grid, [i, j, k].

    Returns:
        uint8 [i, j, k], C-contiguous.
    """
    found = labels.permute(2, 1, 0)
    back = tuple(int(axis) for axis in np.argsort(orientation.axes))
    for axis in range(3):
        table = nearest_table(found.shape[axis], shape[orientation.axes[axis]])
        if orientation.flipped[axis]:
            table = table[::-1]
        index = torch.from_numpy(np.array(table)).to(labels.device)
        found = found.index_select(axis, index)
    result: NDArray[np.uint8] = found.permute(back).contiguous().cpu().numpy()
    return result
