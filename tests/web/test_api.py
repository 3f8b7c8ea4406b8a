"""The API holds what its description says, whatever is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from ledger_kit import analysed, deliver_all, header, receive
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from web_kit import Web

from dicomnode.ledger import Ledger
from dicomnode.web.api import openapi
from dicomnode.web.app import all_pages

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(openapi())
OPERATIONS = [operation.ok() for operation in SCHEMA.get_all_operations()]


def test_every_route_of_the_api_is_described(web: Web) -> None:
    described = {
        (method.upper(), path)
        for path, item in web.program("vera").get("/api/openapi.json").json()["paths"].items()
        for method in item
    }
    routes = {(one.method, one.path) for one in all_pages() if one.is_api}
    assert routes - described == {("GET", "/api/openapi.json"), ("GET", "/metrics")}
    assert described <= routes


@pytest.fixture
def busy(web: Web, ledger: Ledger, clock: Any) -> Web:
    """A page with something to say."""
    analysed(ledger, clock)
    deliver_all(ledger)
    receive(ledger, header("9.1.1", study="9", series="9.1"))
    receive(ledger, header("9.1.2", study="9", series="9.1", patient_key="other"))
    return web


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.label)
def test_whatever_is_asked_the_answer_is_as_described(
    busy: Web, operation: Any, tmp_path: Path
) -> None:
    client = busy.program("olga")

    @hypothesis.settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        arguments = case.as_transport_kwargs(base_url="http://node.test")
        arguments.pop("cookies", None)
        headers = {
            name: value
            for name, value in dict(arguments.pop("headers", {})).items()
            if name.lower() != "authorization"
        }
        answer = client.request(**arguments, headers=headers)
        case.validate_response(answer, checks=CHECKS)

    ask()
