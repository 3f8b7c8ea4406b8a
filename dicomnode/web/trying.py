"""Trying the rules: which model a series would get, where its results would go, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from starlette.responses import JSONResponse, Response

from dicomnode.domain.choosing import VERDICTS
from dicomnode.domain.identifiers import InvalidUIDError, parse_uid
from dicomnode.domain.sayings import saying
from dicomnode.domain.trying import BOUNDS, CLASSES, MOST_TEXT, ORIENTATIONS, Invented
from dicomnode.trial import choice_of_invented, choices_of_stored
from dicomnode.web.guard import RefusedError
from dicomnode.web.pages import audit_view
from dicomnode.web.rendering import page
from dicomnode.web.site import Call, Page

Facts = dict[str, Any]
Field = dict[str, Any]

_LABELS = {
    "modality": "Modality",
    "description": "Series Description",
    "body_part": "Body Part",
    "study_description": "Study Description",
    "protocol": "Protocol Name",
    "manufacturer": "Manufacturer",
    "device": "Model Name",
    "station": "Station Name",
    "kernel": "Convolution Kernel",
    "image_type": "Image Type",
    "contrast": "Contrast Agent",
    "sending_ae": "Calling AE title",
    "orientation": "Orientation",
    "slices": "Slices",
    "slice_thickness_mm": "Slice Thickness, mm",
    "spacing_mm": "Slice spacing, mm",
    "matrix": "Rows and columns",
    "kvp": "kVp",
}
_CHOICES = {"modality": tuple(CLASSES), "orientation": tuple(ORIENTATIONS)}
_WHOLE = ("slices", "matrix")
NUMBERS = {name: (least, most) for name, least, most in BOUNDS}
FIELDS: tuple[Field, ...] = tuple(
    {
        "name": item.name,
        "label": _LABELS[item.name],
        "default": item.default,
        "choices": _CHOICES.get(item.name, ()),
        "bounds": NUMBERS.get(item.name),
        "step": "1" if item.name in _WHOLE else "any",
    }
    for item in fields(Invented)
)


def invented(given: Mapping[str, str]) -> Invented:
    """Return the series that somebody describes.

    Raises:
        RefusedError: an attribute cannot be so.
    """
    values: dict[str, Any] = {}
    for name in (item["name"] for item in FIELDS):
        text = given.get(name, "").strip()
        if name in NUMBERS and not text:
            continue
        if name in NUMBERS:
            try:
                values[name] = int(text) if name in _WHOLE else float(text)
            except ValueError as error:
                raise RefusedError(422, f"{name}: expected a number") from error
        elif name in given:
            values[name] = text
    try:
        return Invented(**values)
    except ValueError as error:
        raise RefusedError(422, str(error)) from error


def trial(call: Call) -> Facts:
    """Return what would become of a stored study, or of an invented series.

    Raises:
        RefusedError: it is unknown, or cannot be so.
    """
    site, uid = call.site, call.query.get("uid", "").strip()
    if not uid:
        series = choice_of_invented(invented(call.query), site.settings)
        return {"study_uid": None, "series": _said(series)}
    try:
        parse_uid(uid)
    except InvalidUIDError as error:
        raise RefusedError(422, "uid: expected a Study or Series Instance UID") from error
    with site.ledger.looking() as tx:
        found = choices_of_stored(tx, uid, site.settings)
    if found is None:
        raise RefusedError(404, "No study and no series with this UID is known here.")
    audit_view(call, found["study_uid"])
    return {**found, "series": _said(found["series"])}


def _said(series: list[Facts]) -> list[Facts]:
    for one in series:
        code = one["choice_code"]
        one["says"] = VERDICTS.get(code) or saying(code).what
    return series


def show(call: Call) -> Response:
    """Show the form, and what was asked for."""
    asked = any(name == "uid" or name in _LABELS for name in call.query)
    found, fault, status = None, "", 200
    if asked:
        try:
            found = trial(call)
        except RefusedError as refused:
            fault, status = refused.says, refused.status
    given = {item["name"]: call.query.get(item["name"], _shown(item["default"])) for item in FIELDS}
    return page(
        call,
        "try.html",
        "Try the rules",
        status=status,
        found=found,
        fault=fault,
        uid=call.query.get("uid", ""),
        fields=FIELDS,
        given=given,
        most_text=MOST_TEXT,
        rules=[rule.name for rule in call.site.settings.rules],
    )


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def answer(call: Call) -> Response:
    """Which model a stored study's series, or one that is described, would get, and why."""
    return JSONResponse(trial(call))


def parameters() -> list[Facts]:
    """Return what may be asked, as OpenAPI describes it."""
    says = "A study that came, or one of its series; without it the series is as described."
    found = [_parameter("uid", {"type": "string", "pattern": r"^[0-9.]{1,64}$"}, says)]
    for item in FIELDS:
        schema: Facts = {"type": "string", "maxLength": MOST_TEXT}
        if item["bounds"]:
            least, most = item["bounds"]
            kind = "integer" if item["name"] in _WHOLE else "number"
            schema = {"type": kind, "minimum": least, "maximum": most}
        elif item["choices"]:
            schema = {"type": "string", "enum": list(item["choices"])}
        schema["default"] = item["default"]
        found.append(_parameter(item["name"], schema, item["label"]))
    return found


def _parameter(name: str, schema: Facts, says: str) -> Facts:
    return {"name": name, "in": "query", "schema": schema, "description": says}


TRYING: tuple[Page, ...] = (Page(path="/try", handle=show),)
