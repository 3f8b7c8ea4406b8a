"""The identifiers of a result set: derived from all that decides its content.

Equal input gives equal UIDs, other content gives other UIDs, so that a re-run is recognised and a
changed result is never taken for the old one. No clock and no random number may enter here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dicomnode import __version__
from dicomnode.domain.identifiers import InstanceUID, SeriesUID, derive_uid
from dicomnode.domain.plans import SEG_PARTS, Plan
from dicomnode.results.acquisition import acquisition_sentence
from dicomnode.results.headers import Source, value_of
from dicomnode.results.model import Model
from dicomnode.scan import LabelMap

IMPLEMENTATION_CLASS_UID = derive_uid("dicomnode", "implementation class")
"""The same in every version (PS3.7 D.3.3.2)."""
IMPLEMENTATION_VERSION_NAME = f"DICOMNODE_{__version__}"[:16]
MAX_SERIES_NUMBER = 2**31 - 1
KINDS = ("seg", "sr", "preview", "rtstruct", "labelmap", *SEG_PARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifiers:
    """The UIDs of one object of a result set."""

    series_uid: SeriesUID
    sop_instance_uid: InstanceUID
    dimension_organization_uid: str
    series_number: int


def content_parts(source: Source, labels: LabelMap, model: Model, plan: Plan) -> tuple[str, ...]:
    """Return all that decides the content of the result set, as texts in a fixed order."""
    return (
        source.scan.digest,
        _header_digest(source),
        str(plan.identity_revision),
        model.id,
        model.version,
        model.weights_digest,
        labels.digest,
        __version__,
        str(plan.generation),
        plan.analysed_at.isoformat(),
        plan.station_name,
        str(plan.series_number_base),
        str(plan.total_in_series),
        *(predecessor.sop_instance_uid for predecessor in plan.predecessors),
        repr(plan.options),
    )


def identify(
    kind: str, sop_class_uid: str, parts: tuple[str, ...], plan: Plan, series_uid: str
) -> Identifiers:
    """Return the identifiers of the object `kind` made from `series_uid`.

    `parts` holds the content; for an object that refers to others, their UIDs too.
    """
    return Identifiers(
        series_uid=SeriesUID(derive_uid("series", kind, *parts)),
        sop_instance_uid=InstanceUID(derive_uid("instance", kind, sop_class_uid, *parts)),
        dimension_organization_uid=derive_uid("dimensions", kind, *parts),
        series_number=series_number(kind, plan, series_uid),
    )


def series_number(kind: str, plan: Plan, series_uid: str) -> int:
    """Return the Series Number: at least the plan's base, below 2^31, one for every result.

    It is spread by a hash over some 10^9 numbers, so that two series of a study do not meet.
    """
    room = min(10**9, (MAX_SERIES_NUMBER - plan.series_number_base) // len(KINDS))
    key = "\0".join((series_uid, plan.model_id, str(plan.generation)))
    spread = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % room
    return plan.series_number_base + spread * len(KINDS) + KINDS.index(kind)


def tracking_uid(series_uid: str, model: Model, label: int) -> str:
    """Return the UID under which this structure of this series is known in every result."""
    return derive_uid("tracking", series_uid, model.id, str(label))


def device_uid(model: Model) -> str:
    """Return the Device UID that stands for exactly these weights."""
    return derive_uid("device", model.id, model.version, model.weights_digest)


def _header_digest(source: Source) -> str:
    digest = hashlib.sha256()
    for dataset in (source.headers[0], source.extra, source.identity, *source.requests):
        for element in dataset.iterall():
            value = "" if element.VR == "SQ" else element.value
            digest.update(f"{element.tag}{element.VR}{value}\n".encode())
    digest.update(acquisition_sentence(source).encode())
    digest.update(str(value_of(source.acquisition, "SeriesNumber")).encode())
    return digest.hexdigest()
