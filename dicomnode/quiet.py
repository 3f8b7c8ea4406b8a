"""No patient data in logs: pydicom's warnings quote the values they complain of."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pydicom.config

_PYDICOM_LOGGER = logging.getLogger("pydicom")


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom, whose warnings quote the offending values, patient names among them."""
    level = _PYDICOM_LOGGER.level
    _PYDICOM_LOGGER.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        _PYDICOM_LOGGER.setLevel(level)
