"""Maintenance windows: the days and times at which K3s may restart on nodes that run."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from pydantic import Field, field_validator, model_validator

from nornir_k3s.model.suggest import closest
from nornir_k3s.model.value_types import Strict

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$"
_LONGEST = 8 * 24 * 60  # minutes until a window that opens once a week has opened, also where the clocks change


class Window(Strict):
    """When K3s may restart on nodes that run; as the window of a plan of system-upgrade-controller.

    Times are those that clocks show in the time zone. A window that ends on the next day belongs to its first day.
    """

    days: list[str] = Field(list(_DAYS), min_length=1, description="such as [sat, sunday]; default: every day")
    start: str = Field("00:00", pattern=_TIME, description="HH:MM")
    end: str = Field("24:00", pattern=_TIME, description="HH:MM; before `start`: on the next day")
    timezone: str = Field("UTC", description="a name of the time zone database, such as Europe/Berlin")

    @field_validator("days", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:  # noqa: ANN401 - what stands in the file
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ValueError("it must be a list of days, such as [sat, sun]")
        return [_day(one) for one in value]

    @model_validator(mode="after")
    def _fits(self) -> Window:
        if self.start == "24:00" or _minutes(self.start) == _minutes(self.end):
            raise ValueError("`end` is when `start` is, so the window never opens; leave both out for whole days")
        if not self.timezone or _zone(self.timezone) is None:
            known = sorted(zoneinfo.available_timezones())
            near = closest(self.timezone, known) if known else ""
            more = f"; did you mean {near}?" if near else "" if known else ": this machine has none, install tzdata"
            raise ValueError(f"there is no time zone {self.timezone!r}{more}")
        return self

    def is_open(self, at: datetime) -> bool:
        """Return whether nodes may be begun at this time, which has a time zone."""
        local = at.astimezone(_zone(self.timezone))
        now, start, end = local.hour * 60 + local.minute, _minutes(self.start), _minutes(self.end)
        today, before = _DAYS[local.weekday()] in self.days, _DAYS[local.weekday() - 1] in self.days
        if start < end:
            return today and start <= now < end
        return (today and now >= start) or (before and now < end)

    def opens(self, at: datetime) -> datetime:
        """Return when it opens next, in its time zone; `at` if it is open.

        Where the clocks change, it opens when they first show a time in it: a time that they skip is no such.
        """
        if self.is_open(at):
            return at.astimezone(_zone(self.timezone))
        minute = at.astimezone(UTC).replace(second=0, microsecond=0)
        for _ in range(2 * _LONGEST):
            minute += timedelta(minutes=1)
            if self.is_open(minute):
                return minute.astimezone(_zone(self.timezone))
        return minute.astimezone(_zone(self.timezone))  # on one day a year

    def __str__(self) -> str:
        """Return it as people write it."""
        days = "" if set(self.days) == set(_DAYS) else " ".join(day[:3] for day in _DAYS if day in self.days) + " "
        return f"{days}{self.start}-{self.end} {self.timezone}"


def _day(text: str) -> str:
    found = [day for day in _DAYS if text.lower() in (day, day[:3], day[:2])]
    if not found:
        near = closest(text.lower(), _DAYS)
        raise ValueError(f"there is no day {text!r}" + (f"; did you mean {near}?" if near else ""))
    return found[0]


def _minutes(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _zone(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
