"""Results that are withdrawn -> a rejection note: a Key Object Selection Document, TID 2010 (PS3.3
A.35.4, PS3.16; IHE RAD TF, Imaging Object Change Management).

The patient and the study are those of a result that it rejects, element by element: a note that
names another patient would be believed, too. Loads neither highdicom nor a model, since `tick`
makes the notes. Equal results, reason and time give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from dicomnode import __version__
from dicomnode.domain.identifiers import (
    InstanceUID,
    SeriesUID,
    SOPClassUID,
    TransferSyntaxUID,
    derive_uid,
)
from dicomnode.domain.moments import in_zone_of
from dicomnode.domain.plans import MANUFACTURER, REJECTION, RTSTRUCT, SR, ResultInstance
from dicomnode.domain.withdrawal import TITLES, Why
from dicomnode.patient_and_study import BESIDES, PATIENT_AND_STUDY
from dicomnode.quiet import quiet_pydicom

SOP_CLASS_UID = SOPClassUID(str(KeyObjectSelectionDocumentStorage))
DESCRIPTION = "AI not for diagnosis: withdrawn results"
MAX_SERIES_NUMBER = 2**31 - 1
_COPIED = ("SpecificCharacterSet", *BESIDES, *PATIENT_AND_STUDY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A result instance that the note names."""

    kind: str
    sop_class_uid: SOPClassUID
    sop_instance_uid: InstanceUID
    series_uid: SeriesUID


def write_note(
    header: Dataset, rejected: Sequence[Rejected], why: Why, moment: datetime, station_name: str
) -> ResultInstance:
    """Return the note.

    Args:
        header: of one of the results, for the patient and the study.
        rejected: what is withdrawn, at least one, all of one study.
        moment: when it was decided, of UTC.
        station_name: AE title of this node.
    """
    named = sorted(rejected, key=lambda item: item.sop_instance_uid)
    parts = (why.code, moment.isoformat(), *(item.sop_instance_uid for item in named))
    uid = InstanceUID(derive_uid("instance", REJECTION, *parts))
    dataset = Dataset()
    for keyword in _COPIED:
        if keyword in header:
            dataset.add(header[keyword])
    local = in_zone_of(moment, str(header.get("TimezoneOffsetFromUTC") or ""))
    day, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    dataset.SOPClassUID, dataset.SOPInstanceUID = SOP_CLASS_UID, uid
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = day, time
    dataset.Modality = "KO"
    dataset.SeriesInstanceUID = SeriesUID(derive_uid("series", REJECTION, *parts))
    dataset.SeriesNumber = int(uid.rsplit(".", 1)[1]) % MAX_SERIES_NUMBER + 1
    dataset.SeriesDescription = DESCRIPTION
    dataset.SeriesDate, dataset.SeriesTime = day, time
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.InstanceNumber = 1
    dataset.ContentDate, dataset.ContentTime = day, time
    _say_who(dataset, station_name, local)
    dataset.ReferencedRequestSequence = list(header.get("ReferencedRequestSequence") or [])
    if not dataset.ReferencedRequestSequence:
        del dataset.ReferencedRequestSequence
    dataset.CurrentRequestedProcedureEvidenceSequence = [_evidence(header, named)]
    _say_what(dataset, named, why, station_name)
    return ResultInstance(
        kind=REJECTION,
        sop_class_uid=SOP_CLASS_UID,
        sop_instance_uid=uid,
        series_uid=SeriesUID(dataset.SeriesInstanceUID),
        transfer_syntax_uid=TransferSyntaxUID(str(ExplicitVRLittleEndian)),
        data=_file(dataset),
        summary={"rejected": len(named), "code": why.code},
    )


def _say_who(dataset: Dataset, station_name: str, local: datetime) -> None:
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MANUFACTURER
    dataset.SoftwareVersions = __version__
    dataset.StationName = station_name[:16]
    # By it a note that is routed back is known to be ours.
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [_code("109102", "Processing Equipment")]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = MANUFACTURER
    item.SoftwareVersions = __version__
    item.StationName = station_name[:16]
    item.ContributionDateTime = local.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = DESCRIPTION
    dataset.ContributingEquipmentSequence = [item]


def _evidence(header: Dataset, named: Sequence[Rejected]) -> Dataset:
    by_series: dict[SeriesUID, list[Dataset]] = {}
    for item in named:
        by_series.setdefault(item.series_uid, []).append(_reference(item))
    study = Dataset()
    study.StudyInstanceUID = header.StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for uid, references in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = references
        study.ReferencedSeriesSequence.append(series)
    return study


def _say_what(dataset: Dataset, named: Sequence[Rejected], why: Why, station_name: str) -> None:
    """Add the tree of TID 2010, without a title's modifier: no reason of CID 7011 fits."""
    dataset.ValueType = "CONTAINER"
    dataset.ContinuityOfContent = "SEPARATE"
    dataset.ConceptNameCodeSequence = [_code(why.code, TITLES[why.code])]
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = "2010"
    dataset.ContentTemplateSequence = [template]
    observer = _item("HAS OBS CONTEXT", "CODE", _code("121005", "Observer Type"))
    observer.ConceptCodeSequence = [_code("121007", "Device")]
    device = _item("HAS OBS CONTEXT", "UIDREF", _code("121012", "Device Observer UID"))
    device.UID = derive_uid("device", MANUFACTURER, station_name)
    name = _item("HAS OBS CONTEXT", "TEXT", _code("121013", "Device Observer Name"))
    name.TextValue = station_name
    said = _item("CONTAINS", "TEXT", _code("113012", "Key Object Description"))
    said.TextValue = why.sentence
    dataset.ContentSequence = [observer, device, name, said]
    for one in named:
        item = _item("CONTAINS", "COMPOSITE" if one.kind in (SR, RTSTRUCT) else "IMAGE")
        item.ReferencedSOPSequence = [_reference(one)]
        dataset.ContentSequence.append(item)


def _item(relationship: str, value_type: str, name: Dataset | None = None) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    if name is not None:
        item.ConceptNameCodeSequence = [name]
    return item


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item


def _reference(item: Rejected) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = item.sop_class_uid
    reference.ReferencedSOPInstanceUID = item.sop_instance_uid
    return reference


def _file(dataset: Dataset) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(derive_uid("dicomnode", "implementation class"))
    dataset.file_meta.ImplementationVersionName = f"DICOMNODE_{__version__}"[:16]
    buffer = BytesIO()
    with quiet_pydicom():
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
