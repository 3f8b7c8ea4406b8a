"""DICOM CT series -> Scan: parse, check identity, choose the stack, place in space, decode.

Either the volume is right or the series is refused with a reason code of `domain/reasons.py`.
Models, results, the ledger and the network may not enter here.
"""

from __future__ import annotations

from dicomnode.imaging.parsing import Source
from dicomnode.imaging.reading import read_scan
from dicomnode.scan import Scan

__all__ = ["Scan", "Source", "read_scan"]
