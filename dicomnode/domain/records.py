"""Facts that the roles hand to one another. Frozen, keyword-only, one line of meaning a field."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dicomnode.domain.identifiers import (
    InstanceUID,
    PatientKey,
    SeriesUID,
    SOPClassUID,
    StudyUID,
    TransferSyntaxUID,
)
from dicomnode.domain.images import NOTHING_STATED, ImageFacts
from dicomnode.domain.packing import Packed
from dicomnode.domain.plans import ModelOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSign:
    """What an instance says of how many belong together: an acquisition or a concatenation."""

    group: str
    """Which acquisition (0020,0012) or concatenation (0020,9161) of its series."""
    total: int
    """Images in Acquisition (0020,1002), or In-concatenation Total Number (0020,9163)."""
    number: int
    """Instance Number (0020,0013), or In-concatenation Number (0020,9162)."""


RETENTION_EXPIRED = "113039"
"""Code of a rejection note that says that instances are gone, not that they are wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A rejection note (IHE RAD, Imaging Object Change Management): what it says of what."""

    code: str
    """Of its Document Title, from DCM: 113001, 113037, 113038 or 113039."""
    instances: tuple[InstanceUID, ...]
    """Of all studies that it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header(Packed):
    """What admission and the rules need of an instance, read without decoding it."""

    study_uid: StudyUID
    series_uid: SeriesUID
    sop_instance_uid: InstanceUID
    sop_class_uid: SOPClassUID
    transfer_syntax_uid: TransferSyntaxUID
    patient_key: PatientKey
    """Keyed hash of Patient ID and issuer."""
    identity_digest: str
    """Keyed hash of Patient ID, issuer, name, birth date and accession number."""
    pixel_digest: str
    """sha256 of the pixel data as encoded; of nothing where there are none."""
    geometry_digest: str
    """sha256 of what places and scales the pixels, independent of the encoding."""
    modality: str
    series_number: int | None
    series_description: str
    body_part: str
    slice_thickness_mm: float | None
    made_by_this_software: bool
    """Contributing Equipment names dicomnode: one of our results, routed back."""
    image: ImageFacts = NOTHING_STATED
    """What the rules and the chooser look at."""
    place_mm: float | None = None
    """Where the image lies along its own normal (LPS); None where it does not say."""
    study_at: datetime | None = None
    """Study Date and Time; the machine's local time unless Timezone Offset From UTC says other."""
    requested_priority: str = ""
    """Requested Procedure Priority (0040,1003), where the modality has copied it."""
    end: EndSign | None = None
    rejection: Rejection | None = None
    """What a Key Object Selection rejects, if it is a rejection note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """What the ledger knows of an instance that has come before."""

    study_uid: StudyUID
    digest: str
    """sha256 of the data set as it came."""
    pixel_digest: str
    geometry_digest: str
    identity_digest: str
    transfer_syntax_uid: TransferSyntaxUID
    is_purged: bool = False
    """Its bytes went by age; its row stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What the rules and the chooser look at; made of the images' facts by `domain.series`."""

    modality: str
    sop_class_uids: tuple[str, ...]
    body_part: str
    description: str
    slice_thickness_mm: float | None
    instances: int
    calling_aes: tuple[str, ...]
    """AE titles the series came from."""
    series_uid: str = ""
    series_number: int | None = None
    image: ImageFacts = NOTHING_STATED
    """Of most images of the stack that would be analysed."""
    slices: int = 0
    """Images of that stack; a multi-frame image counts for its frames."""
    left_out: int = 0
    """Images of the series that do not belong to it."""
    refusal: str = ""
    """Code of why no image, or not enough of them, can be part of a CT volume in HU."""
    refusal_says: str = ""
    places: int = 0
    """Different places along the normal; fewer than slices where several images lie at one."""
    first_mm: float | None = None
    """Least place along the normal."""
    last_mm: float | None = None
    spacing_mm: float | None = None
    """Median distance of neighbouring places."""
    largest_gap_mm: float | None = None
    monoenergetic: bool = False
    kev: float | None = None
    """Energy of virtual monoenergetic images, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A leased analysis: the (series, model, generation), and the attempt that fences it."""

    id: int
    attempt: int
    study_id: int
    series_id: int
    study_uid: StudyUID
    series_uid: SeriesUID
    model_id: str
    generation: int
    identity_revision: int
    destinations: tuple[str, ...]
    options: ModelOptions
    monoenergetic: bool
    """The rule has asked for virtual monoenergetic images."""
    analysed_at: datetime
    paths: tuple[str, ...]
    """Of the instances, relative to the spool."""
    shortages: tuple[str, ...] = ()
    """Codes of attempts that ran out of memory or time (`domain.economy`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """A result instance whose bytes are in the spool."""

    kind: str
    position: int
    """Order in which a destination gets it."""
    sop_class_uid: SOPClassUID
    sop_instance_uid: InstanceUID
    series_uid: SeriesUID
    transfer_syntax_uid: TransferSyntaxUID
    path: str
    """Relative to the spool."""
    digest: str
    size: int
    summary: dict[str, int | float | str]
    refers_to: tuple[str, ...] = ()
    """Kinds of results of the same set that it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One result instance on its way to one destination."""

    id: int
    attempt: int
    job_id: int
    study_id: int
    study_uid: StudyUID
    destination: str
    kind: str
    sop_class_uid: SOPClassUID
    sop_instance_uid: InstanceUID
    transfer_syntax_uid: TransferSyntaxUID
    path: str
    digest: str
    """sha256 of the file when it was recorded."""
    size: int
    """Of the file, in bytes."""
    overridden: bool = False
    """A person has said that it goes although the archive has another identity."""
