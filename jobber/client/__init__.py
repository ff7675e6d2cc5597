"""Python client of jobber's HTTP API.

>>> from jobber.client import Client
>>> with Client("http://127.0.0.1:6060") as jobber:
...     job = jobber.submit("get_profit_entries", ["USER1"])
...     job = jobber.wait(job.job_id)
...     for row in jobber.results(job.job_id):
...         print(row)

A client may be shared by threads; its connections are kept and used again. Numbers with a fraction are ``Decimal``, in
both directions. Errors are those of ``jobber.errors``, found by the code of the answer.
"""

from jobber.client.answers import (
    Attempt,
    Column,
    GroupStatus,
    Hold,
    JobStatus,
    Page,
    Progress,
    Row,
    Scalar,
    Tally,
    Task,
)
from jobber.client.args import Arg
from jobber.client.bodies import NewJob
from jobber.client.client import DEFAULT_SERVER, Client

__all__ = [
    "DEFAULT_SERVER",
    "Arg",
    "Attempt",
    "Client",
    "Column",
    "GroupStatus",
    "Hold",
    "JobStatus",
    "NewJob",
    "Page",
    "Progress",
    "Row",
    "Scalar",
    "Tally",
    "Task",
]
