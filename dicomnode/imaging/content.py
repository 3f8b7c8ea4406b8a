"""What the images of a scan say against its headers: before a model sees them.

The order is by what the next check needs: where the values are no Hounsfield units, nothing is
asked of the anatomy.
"""

from __future__ import annotations

import numpy as np

from dicomnode.domain.content import ORIENTATION_CONTRADICTS
from dicomnode.domain.findings import Finding
from dicomnode.imaging.fields import Fields, texts
from dicomnode.imaging.hounsfield import check_values
from dicomnode.imaging.posture import check_posture
from dicomnode.scan import Scan

_LETTERS = {
    # Patient Orientation (PS3.3 C.7.6.1.1.1), in LPS.
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
_OBLIQUE = 0.3
"""Cosine: 72 degrees off and more is no rounding of an oblique direction."""


def check_content(scan: Scan) -> tuple[Finding, ...]:
    """Return what is wrong with the values, the posture and the stated orientation.

    Values and posture are known by their Hounsfield units: of MR only the headers are compared.
    """
    if scan.modality != "CT":
        return check_orientation(scan.sources[0].fields, scan.orientation)
    values = check_values(scan.volume, scan.valid)
    stated = check_orientation(scan.sources[0].fields, scan.orientation)
    if any(finding.code == "VALUES_NOT_HU" for finding in values):
        return (*values, *stated)
    return (*values, *check_posture(scan.volume, scan.affine, scan.valid), *stated)


def check_orientation(fields: Fields, orientation: tuple[float, ...]) -> tuple[Finding, ...]:
    """Return a finding where Patient Orientation and Image Orientation (Patient) contradict.

    Args:
        fields: of a slice.
        orientation: direction cosines of a row and of a column, LPS.
    """
    words = texts(fields, "PatientOrientation")
    if len(words) != 2:
        return ()
    for name, word, direction in zip(
        ("row", "column"), words, (orientation[:3], orientation[3:]), strict=True
    ):
        stated = _LETTERS.get(word[:1])
        if stated is not None and float(np.dot(stated, direction)) < _OBLIQUE:
            sentence = (
                f"Patient Orientation says that a {name} runs to {word[:1]}, "
                "Image Orientation says otherwise."
            )
            return (Finding(code=ORIENTATION_CONTRADICTS, sentence=sentence),)
    return ()
