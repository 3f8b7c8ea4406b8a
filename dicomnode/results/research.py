"""Label map and measurements -> files for research: NIfTI, statistics.json, and a CSV table.

The forms are TotalSegmentator's where it has one, so that scripts made for it read them. Nothing of
the patient stands in them; UIDs do, so that they can be found again. Equal input, equal bytes.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from xml.etree import ElementTree

import nibabel
import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray

from dicomnode.domain.findings import Finding
from dicomnode.domain.identifiers import (
    InstanceUID,
    SeriesUID,
    SOPClassUID,
    TransferSyntaxUID,
    derive_uid,
)
from dicomnode.domain.plans import FILES, NIFTI, STATISTICS, TABLE, Plan, ResultInstance
from dicomnode.results.codes import StructureCodes, load_codes
from dicomnode.results.headers import Source
from dicomnode.results.model import Measured, Model
from dicomnode.scan import RAS_FROM_LPS, LabelMap, Modality

NOTE = "AI result, not verified, not for diagnosis"
COLUMNS = (
    "study_instance_uid",
    "series_instance_uid",
    "model",
    "model_version",
    "label",
    "structure",
    "code_scheme",
    "code",
    "code_meaning",
    "laterality",
    "volume_ml",
    "incomplete",
    "mean",
    "sd",
    "median",
    "unit",
    "findings",
    "note",
)
UNITS: Mapping[Modality, str] = {"CT": "HU", "MR": "1"}
_EXTENSION_BLOCK = 16
"""NIfTI-1: sizes of extensions are multiples of it."""


def encode_files(
    source: Source,
    labels: LabelMap,
    model: Model,
    measurements: Sequence[Measured],
    plan: Plan,
    parts: tuple[str, ...],
    coded: Sequence[Finding],
) -> Iterator[ResultInstance]:
    """Yield the files that the plan wants. An uneven or tilted stack has no NIfTI: no affine is
    true of it, and the sentences of the scan say what it is.

    Args:
        source: from `headers.prepare`.
        labels: made from the same scan.
        model: that made them.
        measurements: one for every label that occurs.
        plan: its objects name the files.
        parts: all that decides the content (`uids.content_parts`).
        coded: what the checks found.
    """
    for kind in (kind for kind in FILES if kind in plan.objects):
        if kind == NIFTI:
            if not source.scan.is_regular:
                continue
            affine = RAS_FROM_LPS @ source.scan.affine
            data = label_nifti(labels.labels, affine, _names(model), _codes(model))
            summary: dict[str, int | float | str] = {"labels": len(measurements)}
        elif kind == STATISTICS:
            data = statistics_json(measurements, _names(model))
            summary = {"structures": len(_names(model))}
        else:
            data = structures_csv(source, model, measurements, coded)
            summary = {"rows": len(measurements)}
        said = tuple(one.code + " ".join(one.structures) for one in coded) if kind == TABLE else ()
        yield ResultInstance(
            kind=kind,
            sop_class_uid=SOPClassUID(""),
            sop_instance_uid=InstanceUID(derive_uid("file", kind, *parts, *said)),
            series_uid=SeriesUID(derive_uid("files", *parts)),
            transfer_syntax_uid=TransferSyntaxUID(""),
            data=data,
            summary=summary,
        )


def label_nifti(
    labels: NDArray[np.uint8],
    affine: NDArray[np.float64],
    names: Mapping[int, str],
    codes: Mapping[int, StructureCodes],
) -> bytes:
    """Return a .nii.gz of all labels, with their names in a header extension as TotalSegmentator
    writes them (`--ml`): Connectome Workbench's XML table of labels.

    Args:
        labels: [slice, row, column]; in the file [column, row, slice].
        affine: 4x4, (slice, row, column) to RAS+ mm.
        names: of all labels of the model.
        codes: their colours.
    """
    image = nibabel.Nifti1Image(labels.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]], dtype=np.uint8)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header["descrip"] = NOTE.encode()
    xml = _label_table(names, codes)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, xml))
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _label_table(names: Mapping[int, str], codes: Mapping[int, StructureCodes]) -> bytes:
    root = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    for label, name in sorted(names.items()):
        rgb = (1.0, 1.0, 1.0)
        if label in codes:
            red, green, blue = CIELabColor.from_dicom_value(codes[label].cielab).to_rgb()
            rgb = (red / 255, green / 255, blue / 255)
        row = ElementTree.SubElement(table, "Label", Key=str(label))
        for colour, part in zip(("Red", "Green", "Blue", "Alpha"), (*rgb, 1.0), strict=True):
            row.set(colour, f"{part:.4f}")
        row.text = name
    ElementTree.SubElement(volume, "StudyMetaDataLinkSet")
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    xml: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    # Spaces to the end of the block: readers would find zeros there, which are no XML.
    return xml + b" " * (-(len(xml) + 8) % _EXTENSION_BLOCK)


def statistics_json(measurements: Sequence[Measured], names: Mapping[int, str]) -> bytes:
    """Return volume (mm3) and mean value of every structure, as TotalSegmentator's `statistics`.

    As there, what was not found has zeros, and so has what the field of view cuts, because its
    volume would be taken for that of the whole.
    """
    found = {item.label: item for item in measurements if not item.touches_border}
    table = {}
    for label, name in sorted(names.items()):
        item = found.get(label)
        volume = 0.0 if item is None else round(item.volume_ml * 1000, 5)
        mean = 0.0 if item is None or item.mean is None else round(item.mean, 5)
        table[name] = {"volume": volume, "intensity": mean}
    return json.dumps(table, indent=4).encode()


def structures_csv(
    source: Source, model: Model, measurements: Sequence[Measured], coded: Sequence[Finding]
) -> bytes:
    """Return a table with a row for every structure that was found (RFC 4180, UTF-8).

    Where `incomplete` is yes, the field of view cuts the structure, and the volume is of a part.
    """
    text = StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    table.writeheader()
    names, codes = _names(model), _codes(model)
    header = source.headers[0]
    for item in measurements:
        name, code = names[item.label], codes[item.label]
        side = code.type_modifier or code.region_modifier
        table.writerow(
            {
                "study_instance_uid": str(header.StudyInstanceUID),
                "series_instance_uid": str(header.SeriesInstanceUID),
                "model": model.id,
                "model_version": model.version,
                "label": item.label,
                "structure": name,
                "code_scheme": "SCT",
                "code": code.type.value,
                "code_meaning": code.type.meaning,
                "laterality": side.meaning if side else "",
                "volume_ml": round(item.volume_ml, 3),
                "incomplete": "yes" if item.touches_border else "no",
                "mean": _rounded(item.mean),
                "sd": _rounded(item.sd),
                "median": _rounded(item.median),
                "unit": UNITS[source.scan.modality],
                "findings": " ".join(
                    dict.fromkeys(one.code for one in coded if name in one.structures)
                ),
                "note": NOTE,
            }
        )
    return text.getvalue().encode()


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 2)


def _names(model: Model) -> Mapping[int, str]:
    return model.structures


def _codes(model: Model) -> Mapping[int, StructureCodes]:
    return load_codes(model.code_table)
