"""What objects that highdicom has no class for begin with: patient, study, series, equipment."""

from __future__ import annotations

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.plans import MANUFACTURER, Plan
from dicomnode.results.common import (
    MAX_LONG_STRING,
    contributing_equipment,
    series_description,
    software_versions,
    times,
)
from dicomnode.results.headers import Source
from dicomnode.results.model import Model
from dicomnode.results.uids import Identifiers


def begin(
    kind: str,
    sop_class_uid: str,
    modality: str,
    source: Source,
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
) -> hd.SOPClass:
    """Return an object of one instance in a series of its own, in the study of the source."""
    moment = times(source, plan)
    header = source.headers[0]
    dataset = hd.SOPClass(
        study_instance_uid=str(header.StudyInstanceUID),
        series_instance_uid=identifiers.series_uid,
        series_number=identifiers.series_number,
        sop_instance_uid=identifiers.sop_instance_uid,
        sop_class_uid=sop_class_uid,
        instance_number=1,
        modality=modality,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=model.id[:MAX_LONG_STRING],
        software_versions=software_versions(model),
        device_serial_number=model.weights_digest[:16],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=series_description(kind, source, model, plan),
        specific_character_set=header.get("SpecificCharacterSet"),
        series_date=moment.date,
        series_time=moment.time,
    )
    for keyword, value in (("ContentDate", moment.date), ("ContentTime", moment.time)):
        if keyword in dataset:  # not every object has it; highdicom read the clock
            setattr(dataset, keyword, value)
    dataset.copy_patient_and_study_information(header)
    dataset.ContributingEquipmentSequence = [
        *_acquisition(header),
        contributing_equipment(model, plan, moment),
        hd.ContributingEquipment.for_highdicom(),
    ]
    if source.requests:
        dataset.RequestAttributesSequence = list(source.requests)
    return dataset


def _acquisition(header: Dataset) -> list[hd.ContributingEquipment]:
    """Return the scanner, where its header names a manufacturer."""
    if not header.get("Manufacturer"):
        return []
    return [hd.ContributingEquipment.for_image_acquisition(header)]
