"""/openapi.json is valid, and tells the same as the code and docs/http-api.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from jobber.api.errors import STATUS
from jobber.api.list_schemas import FilterBody
from jobber.api.requests import GroupBody, JobBody
from jobber.api.schemas import GroupPart, JobPart
from jobber.jobs import JobState
from tests.api.http import Http

DOCS = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()


def test_the_document_is_valid_openapi_3_1(http: Http) -> None:
    assert http.spec["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(http.spec).validate()


def test_the_check_of_the_document_can_fail(http: Http) -> None:
    broken = json.loads(json.dumps(http.spec))
    del broken["info"]
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


def _routes(http: Http) -> set[tuple[str, str]]:
    return {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in http.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_route_is_described(http: Http) -> None:
    described = {
        (method.upper(), path) for path, item in http.spec["paths"].items() for method in item if method != "parameters"
    }
    assert _routes(http) - {("GET", "/openapi.json")} == described


def test_every_operation_has_a_summary_and_says_how_it_answers(http: Http) -> None:
    for path, item in http.spec["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                assert operation["summary"], path
                assert "200" in operation["responses"], path


def test_the_request_schema_takes_what_the_server_takes(http: Http) -> None:
    schema = http.spec["paths"]["/tasks/{task_name}/jobs"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    validator = Draft202012Validator({**schema, "components": http.spec["components"]})
    go = {"task": "", "job_id": "", "queue": "", "eta": "", "retries": 0, "ttl": 0, "args": None, "db": ""}
    validator.validate(go)
    validator.validate({"args": ["USER1", 1.5, None], "tags": {"a": "b"}, "priority": 10, "eta": "2030-01-01 00:00:00"})
    for wrong in ({"args": [[1]]}, {"priority": 11}, {"job_id": "a b"}, {"tags": {"a": 1}}, {"retries": "1"}):
        assert not validator.is_valid(wrong), wrong


def test_a_filter_takes_its_states_as_a_text_or_as_a_list_as_its_schema_says(http: Http) -> None:
    state = http.spec["components"]["schemas"]["FilterBody"]["properties"]["state"]
    for several in ("FAILURE,CANCELLED", ["FAILURE", "CANCELLED"]):
        Draft202012Validator(state).validate(several)
        assert FilterBody().load({"state": several}) == {"state": {JobState.FAILURE, JobState.CANCELLED}}
    assert not Draft202012Validator(state).is_valid([])


@pytest.mark.parametrize("code", sorted(STATUS))
def test_every_code_is_documented_with_its_status(code: str) -> None:
    assert re.search(rf"^\| `{code}` \| {STATUS[code]} \|", DOCS, re.MULTILINE)


def test_every_route_is_documented(http: Http) -> None:
    for method, path in _routes(http):
        assert f"`{method} {path}`" in DOCS


@pytest.mark.parametrize(
    "field", sorted({*JobBody().fields, *JobPart().fields, *GroupBody().fields, *GroupPart().fields})
)
def test_every_field_of_a_job_and_a_group_is_documented(field: str) -> None:
    assert f"| `{field}` |" in DOCS


def test_every_option_is_documented(http: Http) -> None:
    for item in http.spec["paths"].values():
        for method, operation in item.items():
            for parameter in operation.get("parameters", []) if method != "parameters" else []:
                assert f"`{parameter['name']}`" in DOCS
