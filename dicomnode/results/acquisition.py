"""What a value was measured on: contrast, tube voltage, kernel, thickness, compression; of MR the
sequence and its times.

The same organ differs by tens of HU between these, and the signal of MR has no scale at all: so the
report says them beside every value.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicomnode.results.headers import Source, slice_thickness, value_of

_NOT_GIVEN = frozenset({"NONE", "NO", "NO CONTRAST", "WITHOUT", "NATIVE"})


def acquisition_sentence(source: Source) -> str:
    """Return one sentence on how the images were made; what the header does not say is unknown."""
    header = source.acquisition
    if source.scan.modality == "MR":
        return _mr_sentence(source)
    voltage, kernel = _text(header, "KVP"), _text(header, "ConvolutionKernel")
    thickness = slice_thickness(header)
    return (
        f"Measured on CT with contrast {contrast(header)}, "
        f"{f'{float(voltage):g} kVp' if _is_number(voltage) else 'kVp unknown'}, "
        f"kernel {kernel or 'unknown'}, "
        f"slice thickness {f'{thickness} mm' if thickness else 'unknown'}, "
        f"{'lossy' if source.scan.lossy else 'no lossy'} compression."
    )


def _mr_sentence(source: Source) -> str:
    header = source.acquisition
    thickness = slice_thickness(header)
    field, echo, repetition = (
        f"{name} {float(text):g} {unit}" if _is_number(text) else f"{name} unknown"
        for name, text, unit in (
            ("field", _text(header, "MagneticFieldStrength"), "T"),
            ("echo time", _text(header, "EchoTime"), "ms"),
            ("repetition time", _text(header, "RepetitionTime"), "ms"),
        )
    )
    return (
        f"Measured on MR with contrast {contrast(header)}, {field}, "
        f"sequence {_text(header, 'ScanningSequence') or 'unknown'}, {echo}, {repetition}, "
        f"slice thickness {f'{thickness} mm' if thickness else 'unknown'}, "
        f"{'lossy' if source.scan.lossy else 'no lossy'} compression; the signal has no unit."
    )


def contrast(header: Dataset) -> str:
    """Return `given (<agent>)`, `not given` or `unknown` from Contrast/Bolus Agent (PS3.3 C.7.6.4).

    The attribute is absent without contrast as often as where nobody filled it in: absent is
    unknown.
    """
    agent = _text(header, "ContrastBolusAgent")
    if agent.upper() in _NOT_GIVEN:
        return "not given"
    if agent:
        return f"given ({agent})"
    return "given" if value_of(header, "ContrastBolusAgentSequence") else "unknown"


def _text(header: Dataset, keyword: str) -> str:
    value = value_of(header, keyword)
    parts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(parts, list):
        parts = list(parts) if hasattr(parts, "__iter__") else [parts]
    text = " ".join(str(part).strip(" \0") for part in parts).strip()
    return text if text.isascii() and text.isprintable() else ""


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False
