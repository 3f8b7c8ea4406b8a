"""What lies in the spool, for a study's page: measurements of a report, whose the images are."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicomnode.quiet import quiet_pydicom

log = logging.getLogger(__name__)

MEASUREMENT_GROUP = "125007"
FINDING = "121071"
FINDING_SITE = "363698007"
LATERALITY = "272741003"
VOLUME = "118565006"
ATTENUATION = "112031"
DERIVED = {"373098007": "mean", "386136009": "deviation"}
"""What is shown of the ways in which the attenuation is derived."""
DERIVATION = "121401"

UNREADABLE = (OSError, ValueError, AttributeError, InvalidDicomError)

Facts = dict[str, Any]


def measurements(path: Path) -> list[Facts] | None:
    """Return the Measurement Groups (TID 1411) of a report, or None if it cannot be read.

    Returns:
        For each structure `name`, `volume_ml`, `mean` and `deviation` of its attenuation with
        their `unit`; None where the report does not say.
    """
    try:
        with quiet_pydicom():
            return [_group(item) for item in _groups(pydicom.dcmread(path))]
    except (*UNREADABLE, KeyError, IndexError) as error:
        name = type(error).__name__
        log.warning("REPORT_UNREADABLE", extra={"fields": {"path": path.name, "error": name}})
        return None


def _groups(item: Dataset) -> list[Dataset]:
    found = []
    for one in item.get("ContentSequence", []):
        if _code(one) == MEASUREMENT_GROUP:
            found.append(one)
        else:
            found += _groups(one)
    return found


def _group(group: Dataset) -> Facts:
    facts: Facts = {"name": "", "volume_ml": None, "mean": None, "deviation": None, "unit": ""}
    side = ""
    for item in group.get("ContentSequence", []):
        code = _code(item)
        if code == FINDING:
            facts["name"] = _meaning(item)
        elif code == FINDING_SITE:
            side = next((_meaning(one) for one in _under(item, LATERALITY)), side)
        elif code == LATERALITY:
            side = _meaning(item)
        elif code == VOLUME:
            facts["volume_ml"] = _number(item)[0]
        elif code == ATTENUATION:
            # The same quantity stands there several times, each derived in another way.
            how = next((_code_value(one) for one in _under(item, DERIVATION)), "")
            if how in DERIVED:
                facts[DERIVED[how]], facts["unit"] = _number(item)
    facts["name"] = f"{facts['name']}, {side.lower()}" if side else facts["name"]
    return facts


def _under(item: Dataset, code: str) -> list[Dataset]:
    return [one for one in item.get("ContentSequence", []) if _code(one) == code]


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _code_value(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeValue)


def _meaning(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def _number(item: Dataset) -> tuple[float | None, str]:
    values = item.get("MeasuredValueSequence")
    if not values:
        return None, ""
    unit = str(values[0].MeasurementUnitsCodeSequence[0].CodeValue)
    return float(values[0].NumericValue), "HU" if unit == "[hnsf'U]" else unit


PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyDescription")


def patient(path: Path) -> dict[str, str] | None:
    """Return whose an image is, as it says, or None if it cannot be read."""
    try:
        with quiet_pydicom():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(PATIENT))
            return {name: str(header.get(name, "")) for name in PATIENT}
    except UNREADABLE as error:
        name = type(error).__name__
        log.warning("IMAGE_UNREADABLE", extra={"fields": {"error": name}})
        return None
