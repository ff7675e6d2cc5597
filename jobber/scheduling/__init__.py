"""Schedules: when they fire, who fires them, and what can be asked of them."""

from __future__ import annotations

from jobber.scheduling.firing import Scheduler, disobeyed
from jobber.scheduling.operations import ScheduleDetails, ScheduleRequest, Schedules

__all__ = ["ScheduleDetails", "ScheduleRequest", "Scheduler", "Schedules", "disobeyed"]
