"""`dicomnode rules`: what the rules and the chooser would do with files that have not been sent."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dicomnode.domain.choosing import choose_series, summary
from dicomnode.domain.identifiers import SeriesUID, StudyUID
from dicomnode.domain.records import Header
from dicomnode.domain.series import Member, summarise
from dicomnode.errors import Refusal, SettingsError
from dicomnode.instances import UnreadableError, read_header, split_file
from dicomnode.settings import Settings

log = logging.getLogger(__name__)


def choices_of_folder(
    folder: Path, settings: Settings, calling_ae: str | None = None
) -> list[dict[str, Any]]:
    """Return for every study below a folder its series with what would be decided on each.

    The age of a study and what was analysed before are left out of account.

    Args:
        calling_ae: where the files would come from, for rules that ask for it.

    Raises:
        SettingsError: there is no such folder.
        Refusal: there is no DICOM file in it.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder}: no such folder")
    studies: dict[StudyUID, dict[SeriesUID, list[Header]]] = defaultdict(lambda: defaultdict(list))
    for header in _headers(folder):
        if not header.made_by_this_software:
            studies[header.study_uid][header.series_uid].append(header)
    if not studies:
        raise Refusal("NO_DICOM", f"there is no DICOM file in {folder}")
    return [
        {"study_uid": uid, "series": _decided(series, settings, calling_ae)}
        for uid, series in sorted(studies.items())
    ]


def _headers(folder: Path) -> Iterable[Header]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        try:
            syntax, start = split_file(data)
            yield read_header(data[start:], syntax, b"offline")
        except UnreadableError as error:
            log.info("NOT_DICOM", extra={"fields": {"path": path, "detail": str(error)}})


def _decided(
    series: dict[SeriesUID, list[Header]], settings: Settings, calling_ae: str | None
) -> list[dict[str, Any]]:
    facts = {
        uid: summarise(
            [
                Member(
                    sop_class_uid=header.sop_class_uid,
                    facts=header.image,
                    place_mm=header.place_mm,
                    calling_ae=calling_ae,
                )
                for header in headers
            ],
            series_uid=uid,
            series_number=headers[0].series_number,
            modality=headers[0].modality,
            body_part=headers[0].body_part,
            description=headers[0].series_description,
            slice_thickness_mm=headers[0].slice_thickness_mm,
        )
        for uid, headers in series.items()
    }
    verdicts = choose_series(settings.rules, settings.choosing, facts.values())
    return [
        {
            "series_uid": found.series_uid,
            "modality": found.modality,
            "series_number": found.series_number,
            "description": found.description,
            "chosen_model": verdicts[found.series_uid].choice.model,
            "choice_code": verdicts[found.series_uid].code,
            "choice": verdicts[found.series_uid].why,
            "summary": summary(found),
            "instances": found.instances,
        }
        for found in sorted(
            facts.values(), key=lambda one: (one.series_number or 0, one.series_uid)
        )
    ]
