"""What an archive says that it holds: the answers to queries, as values. Nobody is asked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dicomnode.domain.identifiers import SeriesUID, SOPClassUID, StudyUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose study it is, as the peer has it; not shown by `repr`."""

    patient_id: str = field(repr=False)
    issuer: str = field(repr=False)
    patient_name: str = field(repr=False)
    birth_date: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """A study that a peer has. Texts are as it sent them, empty where it sent none."""

    study_uid: StudyUID
    study_date: str
    accession_number: str = field(repr=False)
    modalities: tuple[str, ...]
    sop_class_uids: tuple[SOPClassUID, ...]
    instances: int | None
    """Number of Study Related Instances (0020,1208), where it says so."""
    identity: Identity | None
    """None unless it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRecord:
    """A series that a peer has."""

    study_uid: StudyUID
    series_uid: SeriesUID
    modality: str
    series_number: str
    instances: int | None
    """Number of Series Related Instances (0020,1209), where it says so; or counted one by one."""
    sop_class_uids: tuple[SOPClassUID, ...] = ()
    """Where its instances were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCount:
    """How many instances of a study a peer has; no series: it does not know the study.

    An archive that still takes the study in counts what it has so far.
    """

    study_uid: StudyUID
    series: tuple[SeriesRecord, ...]
    """Each with its number of instances."""
    stated: int | None
    """Number of Study Related Instances, where the peer says so; the series may sum up to other."""

    @property
    def by_series(self) -> Mapping[SeriesUID, int]:
        """Series Instance UID -> how many instances it has there."""
        return {one.series_uid: one.instances or 0 for one in self.series}

    @property
    def instances(self) -> int:
        """How many instances there are in all series."""
        return sum(self.by_series.values())
