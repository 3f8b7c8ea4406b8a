"""What travels between the roles and the analysis: the plan in, the result instances out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from dicomnode.domain.content import ContentPolicy
from dicomnode.domain.findings import Action, Finding
from dicomnode.domain.identifiers import InstanceUID, SeriesUID, SOPClassUID, TransferSyntaxUID
from dicomnode.domain.quality import QualityPolicy

MANUFACTURER = "dicomnode"
"""In the Contributing Equipment of every result; by it a result that is routed back is known."""
SEG = "seg"
LABELMAP = "labelmap"
SR = "sr"
PREVIEW = "preview"
RTSTRUCT = "rtstruct"
REJECTION = "rejection"
"""A rejection note: it withdraws results of its job, and is asked for by no profile."""
SEG_PARTS: Mapping[str, str] = MappingProxyType(
    {f"seg_{system}": system for system in ("organs", "bones", "muscles", "vessels")}
)
"""The Segmentation split by systems of the body, each a kind of its own: kind -> system."""
OBJECTS = (SEG, *SEG_PARTS, LABELMAP, RTSTRUCT, PREVIEW, SR)
"""Every kind of result, in the order in which they are sent: the report, which refers, is last."""
NIFTI = "nifti"
STATISTICS = "statistics"
TABLE = "table"
FILES = (NIFTI, STATISTICS, TABLE)
"""Kinds of results that are no DICOM: for folders only."""
FILE_NAMES: Mapping[str, str] = MappingProxyType(
    {NIFTI: "labels.nii.gz", STATISTICS: "statistics.json", TABLE: "structures.csv"}
)


def file_name(kind: str) -> str:
    """Return how a result of a kind is called in a folder of results."""
    return FILE_NAMES.get(kind, f"{kind}.dcm")


DEFAULT_OBJECTS = (SEG, PREVIEW, SR)
DEFAULT_SERIES_NUMBER_BASE = 99000


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The report that a new one replaces (TID 1500, Predecessor Documents Sequence)."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportForm:
    """One form of the report: equal in what it measures, not in its SOP Class and references."""

    sop_class_uid: SOPClassUID
    refers_to: tuple[str, ...]
    """Kinds of results of the same set; empty: the report refers to the source alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model is run, within what its card allows."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    mode: Literal["fast", "exact"] = "fast"
    """exact: label for label what the model's own package gives, in single precision; fast: the
    quickest engine that agrees with it within stated bounds."""
    step_size: float | None = None
    """Distance of neighbouring tiles as a fraction of the patch, at most; None: the card's."""
    structures: tuple[str, ...] = ()
    """Names of what is wanted; parts that find none of it do not run. Empty: everything."""
    body_crop: bool = False
    """Leave out the air around the body; labels then differ a little."""

    def __post_init__(self) -> None:
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise ValueError("step_size must be more than 0 and at most 1")


DEFAULT_OPTIONS = ModelOptions()
DEFAULT_CONTENT = ContentPolicy()
DEFAULT_QUALITY = QualityPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that decides the content of a result besides the source bytes and the model's weights.

    Equal source, weights and plan give equal bytes.
    """

    job_id: str
    """Of the ledger; not written into the results, so that a re-run is byte-identical."""
    model_id: str
    """Of the model card."""
    analysed_at: datetime
    """UTC, when the (series, model, generation) was first taken up; content date and time."""
    station_name: str = "DICOMNODE"
    """AE title of the node."""
    generation: int = 1
    """Of the (series, model) analysis; greater after a late slice."""
    identity_revision: int = 0
    """Of the study; greater after a correction of the patient's identity."""
    series_number_base: int = DEFAULT_SERIES_NUMBER_BASE
    total_in_series: int | None = None
    """Instances the series has in all, where only a part of it is analysed."""
    predecessors: tuple[Predecessor, ...] = ()
    """Every form of the newest report before that some destination has."""
    model_folders: tuple[str, ...] = ()
    """Folders with model cards beside the bundled ones."""
    weights_folder: str | None = None
    """Where the weights of models are installed, and their commissioning is recorded."""
    commissioned_only: bool = True
    """Refuse a model that is not commissioned on this node; demonstration models need not be."""
    device: str = "cpu"
    threads: int | None = None
    thrifty: bool = False
    """Take as little memory as there is a way for (`domain.economy`)."""
    economy: Finding | None = None
    """What of this is not as configured, because an attempt before was short of memory or time."""
    options: ModelOptions = DEFAULT_OPTIONS
    content: ContentPolicy = DEFAULT_CONTENT
    """What follows where the images contradict their headers. It decides whether results are made
    and sent, not what is in them."""
    quality: QualityPolicy = DEFAULT_QUALITY
    """The same of what the label map and the patient's headers say."""
    monoenergetic: bool = False
    """Virtual monoenergetic images were asked for; otherwise they are refused."""
    objects: tuple[str, ...] = DEFAULT_OBJECTS
    """Kinds of results to encode; what each contains does not depend on the others."""
    results_folder: str | None = None
    """A folder of this machine that large results are written to while they are made; None: all
    come as bytes. Whoever gave the folder takes the files away."""
    reports: tuple[ReportForm, ...] = ()
    """Forms of the report, best first; none: a Comprehensive 3D SR that names all other objects."""

    def action(self, code: str) -> Action:
        """Return what is done about a finding, of whichever check."""
        name = code.lower()
        action: Action = getattr(
            self.content if hasattr(self.content, name) else self.quality, name
        )
        return action


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultInstance:
    """One encoded DICOM instance, ready to be stored and sent as it is; or a file for research."""

    kind: str
    """One of `OBJECTS`, or of `FILES`, which have no SOP Class and no Transfer Syntax."""
    sop_class_uid: SOPClassUID
    sop_instance_uid: InstanceUID
    series_uid: SeriesUID
    transfer_syntax_uid: TransferSyntaxUID
    data: bytes = field(repr=False)
    """Whole DICOM file: preamble, file meta information, data set; empty where `file` has it."""
    refers_to: tuple[str, ...] = ()
    """Kinds of results of the same set that it names; of reports only."""
    summary: dict[str, int | float | str]
    """For people: SEG {segments, frames}; SR {measurement_groups}; preview {columns, rows}."""
    file: Path | None = None
    """Where the DICOM file lies, in the plan's folder; not synchronised to the disk."""
    picture: bytes = field(default=b"", repr=False)
    """The same as PNG; of a preview only."""

    @property
    def file_name(self) -> str:
        """How it is called in a folder of results."""
        return file_name(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What one analysis gives: the result set, and the label map it was made from."""

    job_id: str
    """Of the plan it answers."""
    study_uid: str
    series_uid: str
    """Of the source, as its slices name them: whoever records the results compares."""
    results: tuple[ResultInstance, ...]
    """In the order in which a destination gets them: of `OBJECTS`."""
    label_map: bytes = field(repr=False)
    """uint8 [slice, row, column] on the source grid in NumPy's .npz (key `labels`), zip-deflated,
    with `sop_instance_uids` and `frame_numbers` [slice] beside it; read with allow_pickle=False."""
    label_map_digest: str
    """sha256 of the label array's bytes in C order, hexadecimal."""
    demonstration: bool
    """The model is for demonstration: results may go to loopback destinations only."""
    findings: tuple[str, ...] = ()
    """Sentences for the status page, e.g. what part of the series was left out."""
    coded: tuple[Finding, ...] = ()
    """What the checks of images, headers and labels found; their sentences are among the
    findings."""
    held: tuple[str, ...] = ()
    """Codes of those for which the results have to wait for a person."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by stage: decode, check, zoom_in, predict, zoom_back, measure, encode."""
