"""What clients are told at the end: states, rows, and 410 for what a crash emptied."""

from __future__ import annotations

import random
from collections import Counter

from tests.chaos.audit import Audit
from tests.chaos.wire import Wire
from tests.chaos.work import COLUMNS

#: Results that are read over HTTP, beside those that a crash emptied; rows of a page.
_SAMPLE, _PAGE = 100, 1000


def look(audit: Audit, apis: list[str], rng: random.Random) -> None:
    """Ask the instances for jobs and rows, and hold the answers against the databases."""
    wire = Wire(timeout=30)
    newest = {run.job_id: run for run in sorted(audit.runs.values(), key=lambda run: run.run)}
    chosen = rng.sample(sorted(newest), min(_SAMPLE * 3, len(newest)))
    with audit.findings.check("HTTP tells what the databases hold") as check:
        for job_id in chosen:
            check.looked += 1
            answer = wire.call("GET", f"{rng.choice(apis)}/jobs/{job_id}")
            told = answer.data.get("state") if answer.ok else f"{answer.status} {answer.code}"
            if told != newest[job_id].state:
                check.violations.append(f"GET /jobs/{job_id} says {told}: {newest[job_id].told()}")
        lost = {try_.job_id for try_ in audit.emptied}
        whole = sorted(
            job_id for job_id, (run, _) in audit.newest.items() if newest[job_id] is run and job_id not in lost
        )
        for job_id in rng.sample(whole, min(_SAMPLE, len(whole))):
            check.looked += 1
            if why := _rows_differ(audit, wire, rng.choice(apis), job_id):
                check.violations.append(f"GET /jobs/{job_id}/results {why}: {newest[job_id].told()}")
        for job_id in chosen:
            # Where an older run of the ID succeeded, its table is still there.
            if newest[job_id].state != "SUCCESS" and job_id not in audit.newest:
                check.looked += 1
                answer = wire.call("GET", f"{rng.choice(apis)}/jobs/{job_id}/results")
                if answer.code != "results_not_ready":
                    check.violations.append(f"rows of {newest[job_id].told()}: {answer.status} {answer.code}")
    with audit.findings.check("no table that a crash emptied passes for a result") as check:
        codes: Counter[str] = Counter()
        for try_ in audit.emptied:
            if newest[try_.job_id].state != "SUCCESS":
                continue
            check.looked += 1
            answer = wire.call("GET", f"{rng.choice(apis)}/jobs/{try_.job_id}/results")
            codes[f"{answer.status} {answer.code}"] += 1
            if (answer.status, answer.code) != (410, "results_gone"):
                check.violations.append(f"{try_.job_id} answers {answer.status} {answer.code}")


def _rows_differ(audit: Audit, wire: Wire, api: str, job_id: str) -> str:
    """Return how the rows that HTTP gives differ from the answer; "" if they do not."""
    run, try_ = audit.newest[job_id]
    if try_.work.kind == "group":
        return ""
    wanted = try_.work.rows(try_.salt)
    offset: int | None = 0
    while offset is not None:
        page = wire.call("GET", f"{api}/jobs/{job_id}/results?offset={offset}&limit={_PAGE}")
        if not page.ok:
            return f"answers {page.status} {page.code}"
        for row in page.data["data"]:
            if tuple(row[column] for column in COLUMNS) != next(wanted, None):
                return f"differs after row {offset}"
        if page.data["count"] != run.rows:
            return f"counts {page.data['count']} rows"
        offset = page.data["next"]
    return "ends early" if next(wanted, None) is not None else ""
