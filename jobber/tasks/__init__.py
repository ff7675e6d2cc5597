"""Tasks: named queries from ``.sql`` files."""

from __future__ import annotations

from jobber.tasks.loading import TaskSet, load
from jobber.tasks.model import Task
from jobber.tasks.params import Param
from jobber.tasks.preparing import Preparation, prepare

__all__ = ["Param", "Preparation", "Task", "TaskSet", "load", "prepare"]
