"""Jira Cloud: projects, users, issues and their comments. https://developer.atlassian.com/cloud/jira/platform/rest/v3/."""

import re
from datetime import datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from activities.connectors import spec
from activities.connectors.judging import words
from activities.connectors.paging import Offset, TokenInBody
from activities.connectors.spec import (
    HOUR,
    Answer,
    Budget,
    Connector,
    Holder,
    Judgement,
    KeptBy,
    Meaning,
    OAuth,
    Observed,
    Request,
    Resource,
    Row,
    Since,
)
from activities.connectors.vendor_times import iso, retry_after, until
from activities.quiet_hours import time_zone

LIMITS = "https://developer.atlassian.com/cloud/jira/platform/rate-limiting/"
QUOTA = re.compile(r'"(global|tenant)-app-quota"\s*;\s*r=(\d+)\s*;\s*t=(\d+)')
FIELDS = (
    "summary,description,status,issuetype,priority,resolution,labels,project,parent,assignee,reporter,creator,"
    "created,updated,duedate,resolutiondate"
)


class Settings(spec.Settings):
    """Which site, and the time zone of the connecting user's profile: a query's times are read in it."""

    cloud_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
    time_zone: str

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        time_zone(name)
        return name


class Project(Row):
    """https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-projects/."""

    id: str
    key: str
    name: str


class User(Row):
    """https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-users/."""

    accountId: str  # noqa: N815 - the vendor's name
    displayName: str  # noqa: N815 - likewise


class Fields(Row):
    """Those without which an issue is of no use."""

    updated: datetime


class Issue(Row):
    """https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-search/."""

    id: str
    key: str
    fields: Fields


class Comment(Row):
    """https://developer.atlassian.com/cloud/jira/platform/rest/v3/api-group-issue-comments/."""

    id: str
    updated: datetime


def _since(request: Request, since: datetime, settings: spec.Settings) -> Request:
    assert isinstance(settings, Settings)
    zone = ZoneInfo(settings.time_zone)
    local = since.astimezone(zone)
    later = local.replace(fold=1)  # as the text may be read in the hour that the clocks show twice
    ahead = (local.utcoffset() or timedelta()) - (later.utcoffset() or timedelta())
    return request.having(jql=_jql((local.replace(tzinfo=None) - ahead).strftime("%Y-%m-%d %H:%M")))


def _jql(since: str) -> str:
    return f'updated >= "{since}" ORDER BY updated ASC'


def _judge(answer: Answer) -> Judgement | None:
    """A refusal says which limit it was: the app's points, those of one tenant, or an endpoint's burst."""
    said = words(answer)
    if answer.status == 400 and "page" in said.lower() and "token" in said.lower():  # noqa: PLR2004 - bad request
        return Judgement(Meaning.GONE_CURSOR, "page_token", said)
    if answer.status != 429:  # noqa: PLR2004 - too many requests
        return None
    reason = answer.headers.get("ratelimit-reason", "")
    reset = iso(answer.headers.get("x-ratelimit-reset", ""))
    wait = retry_after(answer) or (until(answer, reset) if reset else None)
    budget = "points" if reason == "jira-quota-global-based" else ""
    return Judgement(Meaning.THROTTLED, reason or "http_429", said, wait, budget)


def _limits(answer: Answer) -> tuple[Observed, ...]:
    """X-RateLimit-Remaining is of the endpoint's second, and no news; the quota is told when a fifth of it is left."""
    headers = answer.headers
    found = QUOTA.search(headers.get("ratelimit", "") or headers.get("beta-ratelimit", ""))
    if found is None:
        return ()
    budget = "points" if found[1] == "global" else ""
    return (Observed(int(found[2]), answer.at + timedelta(seconds=int(found[3])), budget=budget),)


JIRA = Connector(
    name="jira",
    host="https://api.atlassian.com",
    base="/ex/jira/{cloud_id}",
    docs="https://developer.atlassian.com/cloud/jira/platform/rest/v3/",
    auth=OAuth("https://auth.atlassian.com", "/oauth/token"),
    settings=Settings,
    headers={"accept": "application/json"},
    budgets=(
        Budget("points", 65_000, HOUR, LIMITS, Holder.APP, points=lambda rows: 1 + rows),
        Budget("burst", 100, timedelta(seconds=1), LIMITS, Holder.CONNECTION, KeptBy.QUEUE),  # of each endpoint, even
    ),
    judge=_judge,
    limits=_limits,
    resources=(
        Resource(
            "projects",
            "/rest/api/3/project/search",
            Project,
            Offset("startAt", "maxResults", 50, last="isLast", total="total"),
            items="values",
            params={"orderBy": "key"},
        ),
        Resource("users", "/rest/api/3/users/search", User, Offset("startAt", "maxResults"), row_id="accountId"),
        Resource(
            "issues",
            "/rest/api/3/search/jql",
            Issue,
            TokenInBody("nextPageToken", "nextPageToken", "maxResults"),
            items="issues",
            params={"fields": FIELDS, "jql": _jql("1970-01-01 00:00")},
            since=Since(_since, overlap=timedelta(minutes=5)),
            updated="fields.updated",
        ),
        Resource(
            "comments",
            "/rest/api/3/issue/{issue}/comment",
            Comment,
            Offset("startAt", "maxResults", total="total"),
            items="comments",
            params={"orderBy": "created"},
            updated="updated",
            parent="issues",
            of_parent={"issue": "id"},
            changed=True,
        ),
    ),
)
