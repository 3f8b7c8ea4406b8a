"""One NIfTI through this project, in a process: ours.py WEIGHTS RESOLUTION IMAGE LABELS."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.common import read_card
from inference.nnunet import NnunetPredictor
from inference.pipeline import segment


def main() -> None:
    weights, resolution, image, labels = sys.argv[1:]
    card = read_card(Path(weights), resolution)
    source = nibabel.load(image)
    predictor = NnunetPredictor(card, device="auto")
    found = segment(np.asarray(source.dataobj), source.affine, card, predictor)
    nibabel.save(nibabel.Nifti1Image(found, source.affine), labels)


if __name__ == "__main__":
    main()
