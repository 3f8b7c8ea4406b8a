"""Label map and measurements -> DICOM Segmentation and TID 1500 report.

Networks, the ledger and the model may not enter here; clocks and random numbers neither, so that
equal input gives equal bytes.
"""

from __future__ import annotations

from dicomnode.results.encoding import encode
from dicomnode.results.headers import Source, prepare
from dicomnode.results.model import Measured, Model

__all__ = ["Measured", "Model", "Source", "encode", "prepare"]
