"""What the rules and the chooser would do: with files, a stored study, or an invented series.

`dicomnode rules` shows it, and the operator's page.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dicomnode.domain.choosing import Verdict, choose_series
from dicomnode.domain.describing import summary
from dicomnode.domain.identifiers import SeriesUID, StudyUID
from dicomnode.domain.records import Header, SeriesFacts
from dicomnode.domain.series import Member, summarise
from dicomnode.domain.trying import Invented, facts_of, tried
from dicomnode.errors import Refusal, SettingsError
from dicomnode.instances import UnreadableError, read_header, split_file
from dicomnode.ledger import Transaction
from dicomnode.ledger.trying import stored_study
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
        {"study_uid": uid, "series": _decided(_facts(series, calling_ae), settings)}
        for uid, series in sorted(studies.items())
    ]


def choices_of_stored(tx: Transaction, uid: str, settings: Settings) -> dict[str, Any] | None:
    """Return what would be decided on a study of the ledger if it came now as it is.

    Its age counts, what was analysed before does not.

    Args:
        uid: of the study, or of one of its series.

    Returns:
        The study's UID and its series; None where neither is known.
    """
    found = stored_study(tx, uid, settings.assembly)
    if found is None:
        return None
    study = found.series.values()
    verdicts = choose_series(settings.rules, settings.choosing, study, allowed=found.allowed)
    return {
        "study_uid": found.study_uid,
        "series": _told(study, verdicts, settings),
    }


def choice_of_invented(said: Invented, settings: Settings) -> list[dict[str, Any]]:
    """Return what would be decided on a series as it is said to be, alone in its study."""
    return _decided([facts_of(said)], settings)


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


def _facts(series: Mapping[SeriesUID, list[Header]], calling_ae: str | None) -> list[SeriesFacts]:
    return [
        summarise(
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
    ]


def _decided(study: list[SeriesFacts], settings: Settings) -> list[dict[str, Any]]:
    return _told(study, choose_series(settings.rules, settings.choosing, study), settings)


def _told(
    study: Iterable[SeriesFacts], verdicts: Mapping[str, Verdict], settings: Settings
) -> list[dict[str, Any]]:
    return [
        {
            "series_uid": found.series_uid,
            "modality": found.modality,
            "series_number": found.series_number,
            "description": found.description,
            "body_part": found.body_part,
            "calling_aes": list(found.calling_aes),
            "chosen_model": verdicts[found.series_uid].choice.model,
            "choice_code": verdicts[found.series_uid].code,
            "choice": verdicts[found.series_uid].why,
            "rule": verdicts[found.series_uid].choice.rule,
            "destinations": list(verdicts[found.series_uid].choice.destinations),
            "rules": [
                {"rule": one.rule, "matches": one.matches, "why": one.why}
                for one in tried(settings.rules, found)
            ],
            "summary": summary(found),
            "instances": found.instances,
        }
        for found in sorted(study, key=lambda one: (one.series_number or 0, one.series_uid))
    ]
