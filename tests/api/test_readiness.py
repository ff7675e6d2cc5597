"""GET /readyz: what is missing, why, and with which status."""

from __future__ import annotations

from jobber.readiness import Finding, Readiness
from tests.api.fake import FakeService
from tests.api.http import Http
from tests.api.site import Site

UP = Finding("state", "state", ok=True, required=True, error="", ms=1)
DOWN = Finding("state", "state", ok=False, required=True, error="the state database cannot be reached", ms=3)
SOURCE_DOWN = Finding("database", "main", ok=False, required=False, error="the database main cannot be reached", ms=7)


def test_an_instance_is_ready_though_a_database_is_down(http: Http, service: FakeService) -> None:
    service.found = (UP, SOURCE_DOWN)

    assert http.get("/readyz").data == {
        "ready": True,
        "draining": False,
        "dependencies": [
            {"kind": "state", "name": "state", "ok": True, "required": True, "error": "", "ms": 1},
            {
                "kind": "database",
                "name": "main",
                "ok": False,
                "required": False,
                "error": "the database main cannot be reached",
                "ms": 7,
            },
        ],
    }


def test_without_its_state_it_is_not_and_the_same_facts_stand_in_the_error(http: Http, service: FakeService) -> None:
    service.found = (DOWN, SOURCE_DOWN)

    answer = http.get("/readyz")

    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert answer.message == "not ready: the state database cannot be reached"
    assert (answer.error["code"], answer.error["ready"], answer.error["draining"]) == ("not_ready", False, False)
    assert [(of["kind"], of["ok"]) for of in answer.error["dependencies"]] == [("state", False), ("database", False)]


def test_while_it_drains_it_is_not(http: Http, service: FakeService) -> None:
    service.found = (UP,)
    service.drain()

    answer = http.get("/readyz")

    assert (answer.status, answer.message) == (503, "not ready: this instance is stopping")
    assert answer.error["draining"] is True


def test_every_dependency_of_an_instance_is_asked_and_a_file_that_is_gone_is_missed(site: Site) -> None:
    found = site.http.get("/readyz").data["dependencies"]
    assert [(of["kind"], of["name"], of["ok"], of["required"]) for of in found] == [
        ("state", "state", True, True),
        ("broker", "broker", True, False),
        ("results", "reports", True, False),
        ("database", "main", True, False),
    ]

    (site.instance.settings.app.data_dir / "source.db").unlink()

    *others, source = Readiness(site.instance.dependencies()).look()
    assert all(other.ok for other in others)
    assert source.error.startswith("the database main")
