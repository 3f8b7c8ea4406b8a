"""The same facts as JSON, what describes them (OpenAPI 3.1), and the metrics."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import JSONResponse, Response

from dicomnode import __version__
from dicomnode.ledger import figures
from dicomnode.ledger import pages as ledger_pages
from dicomnode.web import looks
from dicomnode.web.acts import ACTS
from dicomnode.web.guard import RefusedError
from dicomnode.web.pages import STATES, list_of, study_of
from dicomnode.web.peers import answer as peers
from dicomnode.web.quarantine import answer as quarantine
from dicomnode.web.site import Act, Call, Page
from dicomnode.web.trying import answer as trial
from dicomnode.web.trying import parameters

Schema = dict[str, Any]

MOST_EVENTS = 200


def overview(call: Call) -> Response:
    """What the first page says."""
    return JSONResponse(looks.overview(call.site))


def studies(call: Call) -> Response:
    """A page of studies, the one with the newest image first."""
    return JSONResponse(list_of(call.site, dict(call.query)))


def study(call: Call) -> Response:
    """All that is known of a study."""
    return JSONResponse(study_of(call))


def destinations(call: Call) -> Response:
    """How each destination fares."""
    with call.site.ledger.looking() as tx:
        return JSONResponse({"destinations": looks.all_destinations(tx, call.site.settings)})


def attention(call: Call) -> Response:
    """What needs a person, newest first."""
    with call.site.ledger.looking() as tx:
        rows = ledger_pages.attention(tx, limit=ledger_pages.MOST_ROWS)
    return JSONResponse({"attention": looks.told(rows)})


def jobs(call: Call) -> Response:
    """Jobs that wait or run, and jobs that failed."""
    with call.site.ledger.looking() as tx:
        facts = {
            "waiting": ledger_pages.waiting(tx, limit=ledger_pages.MOST_ROWS),
            "failed": looks.told(ledger_pages.failures(tx, limit=ledger_pages.MOST_ROWS)),
        }
    return JSONResponse(facts)


def events(call: Call) -> Response:
    """The newest events of the whole node, newest first."""
    limit = call.query.get("limit", "50")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MOST_EVENTS:
        raise RefusedError(400, f"limit: expected 1 to {MOST_EVENTS}")
    with call.site.ledger.looking() as tx:
        return JSONResponse({"events": figures.last_events(tx, int(limit))})


def metrics(call: Call) -> Response:
    """What Prometheus reads."""
    text, kind = call.site.metrics.text(call.site)
    return Response(text, media_type=kind)


def description(_call: Call) -> Response:
    """This description."""
    return JSONResponse(openapi())


_TEXT: Schema = {"type": "string"}
_MAYBE: Schema = {"type": ["string", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_COUNTS: Schema = {"type": "object", "additionalProperties": _COUNT}
_ROWS: Schema = {"type": "array", "items": {"type": "object"}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item}


_STUDY = _object(
    study_uid=_TEXT,
    state={"type": "string", "enum": list(STATES)},
    hold_reason=_MAYBE,
    first_at=_TEXT,
    last_at=_TEXT,
    closed_by=_MAYBE,
    series=_COUNT,
    modalities=_list_of(_TEXT),
    instances=_COUNT,
    jobs=_COUNTS,
    deliveries=_COUNTS,
    attention=_list_of(_TEXT),
)
_EVENT = _object(id=_COUNT, at=_TEXT, level=_TEXT, code=_TEXT, detail=_TEXT)
_DESTINATION = _object(
    name=_TEXT, waiting=_COUNT, oldest=_MAYBE, failures=_COUNT, reason=_MAYBE, detail=_TEXT,
    seen_at=_MAYBE, paused_at=_MAYBE, states=_COUNTS, says=_TEXT,
    is_configured={"type": "boolean"},
)  # fmt: skip
_GPU = _object(index=_COUNT, name=_TEXT, total_bytes=_COUNT, used_bytes=_COUNT)
_PEER = _object(
    name=_TEXT, ae_title=_TEXT, host=_TEXT, port={"type": ["integer", "null"]},
    is_encrypted={"type": "boolean"}, may=_list_of(_TEXT), destinations=_list_of(_TEXT),
)  # fmt: skip
_KEPT = _object(
    name=_TEXT, since=_TEXT, size=_COUNT, code=_TEXT, detail=_TEXT, calling_ae=_TEXT,
    status={"type": ["integer", "null"]}, sop_instance_uid=_TEXT, says=_TEXT, todo=_TEXT,
)  # fmt: skip
_TRIED = _object(
    series_uid=_TEXT, modality=_TEXT, description=_TEXT, instances=_COUNT, chosen_model=_MAYBE,
    rule=_MAYBE, destinations=_list_of(_TEXT), choice_code=_TEXT, choice=_TEXT, says=_TEXT,
    rules=_list_of(_object(rule=_TEXT, matches={"type": "boolean"}, why=_TEXT)),
    summary={"type": "object"},
)  # fmt: skip
_SCHEMAS: dict[str, Schema] = {
    "Error": _object(error=_TEXT),
    "Overview": _object(
        now=_TEXT, node=_object(id=_TEXT, ae_title=_TEXT), roles=_ROWS, queues=_ROWS,
        states={"type": "object", "additionalProperties": _COUNTS}, attention=_ROWS,
        attention_count=_COUNT, quarantined=_COUNT,
        gpus=_list_of(_GPU), failures=_ROWS, waiting=_ROWS, strangers=_ROWS,
        destinations=_list_of(_DESTINATION),
        day=_object(hours=_ROWS, latency=_ROWS),
        disk=_object(total_bytes=_COUNT, free_bytes=_COUNT, min_free_bytes=_COUNT),
        audit={"type": ["object", "null"]},
        answers=_list_of(_object(question=_TEXT, level=_TEXT, short=_TEXT, says=_TEXT)),
    ),
    "Studies": _object(studies=_list_of(_STUDY), next=_MAYBE),
    "Study": _object(
        study_uid=_TEXT, state=_TEXT, series=_ROWS, jobs=_ROWS, events=_list_of(_EVENT),
        associations=_ROWS,
    ),
    "Destinations": _object(destinations=_list_of(_DESTINATION)),
    "Attention": _object(attention=_ROWS),
    "Jobs": _object(waiting=_ROWS, failed=_ROWS),
    "Events": _object(events=_list_of(_EVENT)),
    "Peers": _object(peers=_list_of(_PEER)),
    "Quarantine": _object(files=_list_of(_KEPT), count=_COUNT, bytes=_COUNT),
    "Trial": _object(study_uid=_MAYBE, series=_list_of(_TRIED)),
    "Came": _object(done=_COUNT, says=_TEXT),
}  # fmt: skip


def _query(name: str, schema: Schema, says: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": says}


def _limit(most: int) -> Schema:
    return _query("limit", {"type": "integer", "minimum": 1, "maximum": most}, "Rows at most.")


_UID: Schema = {"type": "string", "pattern": r"^[0-9.]{1,64}$"}
_PARAMETERS: dict[str, list[Schema]] = {
    "/api/studies": [
        _query("state", {"type": "string", "enum": list(STATES)}, "Only those in this state."),
        _query("uid", _UID, "Only those whose Study Instance UID begins so."),
        _query("attention", {"type": "string", "enum": ["1"]}, "Only those that need a person."),
        _query(
            "after",
            {"type": "string", "pattern": "^[0-9]{1,16}-[0-9]{1,18}$"},
            "`next` of the page before.",
        ),
        _limit(ledger_pages.MOST_ROWS),
    ],
    "/api/studies/{uid}": [
        {"name": "uid", "in": "path", "required": True, "schema": _UID,
         "description": "Study Instance UID."}
    ],
    "/api/events": [_limit(MOST_EVENTS)],
    "/api/try": parameters(),
}  # fmt: skip
_ANSWERS = {
    "/api/overview": "Overview",
    "/api/studies": "Studies",
    "/api/studies/{uid}": "Study",
    "/api/destinations": "Destinations",
    "/api/attention": "Attention",
    "/api/jobs": "Jobs",
    "/api/events": "Events",
    "/api/peers": "Peers",
    "/api/quarantine": "Quarantine",
    "/api/try": "Trial",
}

API: tuple[Page, ...] = (
    Page(path="/api/overview", handle=overview, is_api=True),
    Page(path="/api/studies", handle=studies, is_api=True),
    Page(path="/api/studies/{uid}", handle=study, is_api=True),
    Page(path="/api/destinations", handle=destinations, is_api=True),
    Page(path="/api/attention", handle=attention, is_api=True),
    Page(path="/api/jobs", handle=jobs, is_api=True),
    Page(path="/api/events", handle=events, is_api=True),
    Page(path="/api/peers", handle=peers, is_api=True),
    Page(path="/api/quarantine", handle=quarantine, is_api=True),
    Page(path="/api/try", handle=trial, is_api=True),
    Page(path="/api/openapi.json", handle=description, is_api=True),
    Page(path="/metrics", handle=metrics, is_api=True),
)


def openapi() -> Schema:
    """Return the description of the API."""
    paths: dict[str, Schema] = {}
    for one in API:
        if one.path in _ANSWERS:
            paths[one.path] = {
                "get": {
                    "summary": (one.handle.__doc__ or "").strip(),
                    "operationId": one.handle.__name__,
                    "parameters": _PARAMETERS.get(one.path, []),
                    "responses": _responses(_ANSWERS[one.path], 400, 401, 403, 404, 422, 503),
                }
            }
    for act in ACTS:
        paths[f"/api/act/{act.name}"] = {"post": _operation(act)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dicomnode",
            "version": __version__,
            "description": "Research software. Not a medical device, not for diagnosis.",
        },
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(act: Act) -> Schema:
    names = (*act.needs, *act.may_have)
    properties: Schema = {name: _field(name) for name in names}
    properties["confirm"] = {"type": "string", "enum": ["yes"]}
    required = [*act.needs, "confirm"]
    if act.reason:
        properties["reason"] = {"type": "string", "minLength": 1, "maxLength": 500}
        required.append("reason")
    schema = {"type": "object", "required": required, "properties": properties}
    content = {"application/x-www-form-urlencoded": {"schema": schema}}
    return {
        "summary": act.title,
        "description": act.asks,
        "operationId": act.name,
        "requestBody": {"required": True, "content": content},
        "responses": _responses("Came", 400, 401, 403, 413, 415, 422, 503),
    }


def _field(name: str) -> Schema:
    if name in ("job", "delivery"):
        return {"type": "integer", "minimum": 0}
    if name == "events":
        return {"type": "string", "pattern": "^[0-9]{1,18}(,[0-9]{1,18})*$"}
    if name == "file":
        return {"type": "string", "pattern": "^[0-9a-f]{32}$"}
    return _UID if name in ("study", "series") else {"type": "string", "minLength": 1}


def _responses(name: str, *faults: int) -> Schema:
    def of(schema: str) -> Schema:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}

    found: Schema = {"200": {"description": "As asked.", "content": of(name)}}
    for status in faults:
        found[str(status)] = {"description": "Refused, and why.", "content": of("Error")}
    return found
