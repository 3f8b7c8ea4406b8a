"""The attributes of patient and study that whatever this node makes takes over from the source.

Keywords only, in the order in which they are looked at. What says whose the images are may not
differ between a result and the note that withdraws it; so both read them here.
"""

from __future__ import annotations

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Required in every result, possibly empty (PS3.3 C.7.1.1, C.7.2.1)."""
PATIENT_AND_STUDY = (
    *TYPE_2,
    # Patient, PS3.3 C.7.1.1; De-identification Method travels with it.
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthTime",
    "OtherPatientIDsSequence",
    "EthnicGroup",
    "PatientComments",
    "QualityControlSubject",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    # General Study and Patient Study, C.7.2.
    "StudyInstanceUID",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianIdentificationSequence",
    "ProcedureCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    # Clinical Trial Subject and Study, C.7.1.3 and C.7.2.3.
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)
BESIDES = ("LongitudinalTemporalInformationModified", "TimezoneOffsetFromUTC")
"""Of SOP Common, C.12.1; highdicom copies neither."""
