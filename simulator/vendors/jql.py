"""The part of Jira's query language that a sync uses: clauses joined by AND, and ORDER BY one field."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Literal

from simulator.vendors.dataset import SECOND

Field = Literal["created", "updated"]

ORDER_BY = re.compile(r"\border\s+by\b", re.IGNORECASE)
AND = re.compile(r"\s+and\s+", re.IGNORECASE)
TIME = re.compile(r"""(created|updated)\s*(>=|<=|>|<)\s*(?:"([^"]*)"|'([^']*)'|(-?\w+))$""", re.IGNORECASE)
PROJECT = re.compile(r"""project\s*(?:=|in)\s*\(?([\w\s,"']+?)\)?$""", re.IGNORECASE)
RELATIVE = re.compile(r"-(\d+)([mhdw])$")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
FORMATS = ("%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%Y-%m-%d", "%Y/%m/%d")  # nothing finer than a minute


class Unreadable(Exception):
    """With Jira's words."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for. Times are UTC microseconds, both bounds included."""

    least: dict[Field, int]
    most: dict[Field, int]
    projects: frozenset[str]
    order: Field
    descending: bool


def parse(text: str, now: int, zone: tzinfo) -> Query:
    """Read a query. Times are in the user's zone.

    Raises:
        Unreadable: it is no query, or one that Jira does not take.
    """
    parts = ORDER_BY.split(text.strip(), maxsplit=1)
    least: dict[Field, int] = {}
    most: dict[Field, int] = {}
    projects: set[str] = set()
    for clause in AND.split(parts[0].strip()) if parts[0].strip() else []:
        time, project = TIME.match(clause.strip()), PROJECT.match(clause.strip())
        if time:
            _bound(least, most, time, now, zone)
        elif project:
            projects |= {each.strip(" \"'").upper() for each in project[1].split(",")}
        else:
            raise Unreadable(f"Error in the JQL Query: Expecting operator but got '{clause.strip()}'.")
    if not (least or most or projects):
        raise Unreadable("Unbounded JQL queries are not allowed here. Please add a search restriction to your query.")
    order, descending = _order(parts[1] if len(parts) > 1 else "")
    return Query(least, most, frozenset(projects), order, descending)


def _bound(least: dict[Field, int], most: dict[Field, int], match: re.Match[str], now: int, zone: tzinfo) -> None:
    field: Field = "created" if match[1].lower() == "created" else "updated"
    value = match[3] or match[4] or match[5] or ""
    at = _instant(value, now, zone)
    if at is None:
        raise Unreadable(
            f"Date value '{value}' for field '{field}' is invalid. Valid formats include: 'yyyy/MM/dd HH:mm', "
            "'yyyy-MM-dd HH:mm', 'yyyy/MM/dd', 'yyyy-MM-dd', or a period format e.g. '-5d', '4w 2d'."
        )
    operator = match[2]
    if operator.startswith(">"):
        least[field] = max(least.get(field, at), at + (operator == ">"))
    else:
        most[field] = min(most.get(field, at), at - (operator == "<"))


def _instant(value: str, now: int, zone: tzinfo) -> int | None:
    relative = RELATIVE.match(value)
    if relative:
        return now - int(timedelta(**{UNITS[relative[2]]: int(relative[1])}).total_seconds()) * SECOND
    for form in FORMATS:
        try:
            return int(datetime.strptime(value, form).replace(tzinfo=zone).timestamp()) * SECOND
        except ValueError:
            continue
    return None


def _order(text: str) -> tuple[Field, bool]:
    if not text.strip():
        return "created", True
    field, _, direction = text.split(",", maxsplit=1)[0].strip().partition(" ")
    name = field.lower()
    if name not in {"created", "updated", "key", "id"} or direction.strip().lower() not in {"", "asc", "desc"}:
        raise Unreadable(f"Error in the JQL Query: cannot order by '{text.strip()}'.")
    # Keys and identifiers rise with creation. Without a direction times go down, as in Jira, and keys up.
    falling = direction.strip().lower() == "desc" or (not direction.strip() and name in {"created", "updated"})
    return ("updated" if name == "updated" else "created"), falling
