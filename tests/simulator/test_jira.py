import re
from typing import Any

import pytest

from simulator.vendors import Account
from tests.simulator.conftest import World

FIELDS = {
    *("summary", "issuetype", "creator", "created", "project", "description", "reporter", "assignee", "priority"),
    *("updated", "status", "labels"),
}
EVERYTHING = 'updated >= "1970-01-01 00:00" ORDER BY updated ASC'


def base(account: Account) -> str:
    return f"/ex/jira/{account.options['cloud_id']}/rest/api/3"


async def search(world: World, account: Account, jql: str = EVERYTHING, **params: str) -> list[dict[str, Any]]:
    """To the last page."""
    asked = {"jql": jql, "fields": "*all", "maxResults": "50", **params}
    rows: list[dict[str, Any]] = []
    while True:
        got = await world.get(account, f"{base(account)}/search/jql", asked)
        assert got.status == 200, got.text
        rows += got.body["issues"]
        assert got.body["isLast"] == ("nextPageToken" not in got.body)
        if got.body["isLast"]:
            return rows
        asked["nextPageToken"] = got.body["nextPageToken"]


async def test_issues_to_the_end_in_order(world: World) -> None:
    acme = world.thirds.account("jira", "acme", sizes={"issues": 230}, zone="Europe/Warsaw")
    rows = await search(world, acme)
    assert [row["id"] for row in rows] == acme.ids("issues")
    assert [row["fields"]["updated"] for row in rows] == sorted(row["fields"]["updated"] for row in rows)
    for row in rows:
        assert set(row) == {"expand", "id", "self", "key", "fields"}
        assert set(row["fields"]) == FIELDS
        assert re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0200", row["fields"]["updated"])
        assert row["key"].startswith(row["fields"]["project"]["key"] + "-")
    assert len({row["key"] for row in rows}) == 230
    assert (await search(world, acme, EVERYTHING.replace("ASC", "DESC"))) == rows[::-1]


async def test_only_the_fields_that_are_asked_for(world: World) -> None:
    acme = world.thirds.account("jira", "acme")
    one = {"jql": EVERYTHING, "maxResults": "1"}
    for fields, expected in (
        ("", {"id"}),
        ("id", {"id"}),
        ("key", {"expand", "id", "self", "key"}),
        ("summary,updated,nothing", {"expand", "id", "self", "key", "fields"}),
    ):
        got = await world.get(acme, f"{base(acme)}/search/jql", one | ({"fields": fields} if fields else {}))
        assert set(got.body["issues"][0]) == expected
    assert set(got.body["issues"][0]["fields"]) == {"summary", "updated"}
    many = await world.get(acme, f"{base(acme)}/search/jql", {"jql": EVERYTHING, "maxResults": "5000"})
    assert len(many.body["issues"]) == 120, "identifiers come in large pages"
    posted = await world.post(
        acme, f"{base(acme)}/search/jql", json={"jql": EVERYTHING, "fields": ["summary"], "maxResults": 500}
    )
    assert len(posted.body["issues"]) == 100, "and other fields do not"
    assert set(posted.body["issues"][0]["fields"]) == {"summary"}


async def test_queries_have_minutes_in_the_users_zone(world: World) -> None:
    utc = world.thirds.account("jira", "utc", sizes={"issues": 10})
    warsaw = world.thirds.account("jira", "warsaw", sizes={"issues": 10}, zone="Europe/Warsaw")
    world.now += 60  # 14:14:25 UTC
    for account, minute, later in ((utc, "2026-09-21 14:14", "2026-09-21 14:15"), (warsaw, "2026-09-21 16:14", "")):
        changed = account.change("issues", count=2)
        rows = await search(world, account, f'updated >= "{minute}" ORDER BY updated ASC')
        assert [row["id"] for row in rows] == changed
        if later:
            assert await search(world, account, f'updated >= "{later}"') == []
    assert len(await search(world, utc, "updated >= -5m order by updated")) == 2
    assert len(await search(world, utc, 'updated < "2026-09-21 14:14" AND project = OPS')) in {2, 3, 4}


@pytest.mark.parametrize(
    ("jql", "words"),
    [
        ("ORDER BY updated", "Unbounded JQL"),
        ("", "Unbounded JQL"),
        ('updated >= "yesterday"', "is invalid"),
        ("watchers = me()", "Error in the JQL Query"),
        ("updated >= -1d ORDER BY rank", "cannot order by"),
    ],
)
async def test_queries_that_are_none(world: World, jql: str, words: str) -> None:
    acme = world.thirds.account("jira", "acme")
    got = await world.get(acme, f"{base(acme)}/search/jql", {"jql": jql})
    assert got.status == 400
    assert words in got.body["errorMessages"][0]
    assert got.body["errors"] == {}


async def test_page_tokens_are_good_for_their_query_and_for_a_week(world: World) -> None:
    acme = world.thirds.account("jira", "acme", token_seconds=10_000_000)
    path = f"{base(acme)}/search/jql"
    token = (await world.get(acme, path, {"jql": EVERYTHING})).body["nextPageToken"]
    other = await world.get(acme, path, {"jql": "updated >= -1d", "nextPageToken": token})
    broken = await world.get(acme, path, {"jql": EVERYTHING, "nextPageToken": "broken"})
    assert (other.status, broken.status) == (400, 400)
    world.now += 7 * 86_400 - 10
    assert (await world.get(acme, path, {"jql": EVERYTHING, "nextPageToken": token})).status == 200
    world.now += 20
    assert (await world.get(acme, path, {"jql": EVERYTHING, "nextPageToken": token})).status == 400


async def test_projects_users_and_comments_are_paged_by_position(world: World) -> None:
    acme = world.thirds.account("jira", "acme", sizes={"projects": 7, "users": 5, "comments": 6})
    first = (await world.get(acme, f"{base(acme)}/project/search", {"maxResults": "4"})).body
    assert list(first) == ["self", "nextPage", "maxResults", "startAt", "total", "isLast", "values"]
    assert (first["startAt"], first["total"], first["isLast"]) == (0, 7, False)
    last = (await world.get(acme, first["nextPage"])).body
    assert ("nextPage" in last, last["startAt"], last["isLast"]) == (False, 4, True)
    assert [row["id"] for row in first["values"] + last["values"]] == acme.ids("projects")
    users = [
        (await world.get(acme, f"{base(acme)}/users/search", {"startAt": str(start), "maxResults": "3"})).body
        for start in (0, 3, 6)
    ]
    assert [len(page) for page in users] == [3, 2, 0]
    assert [row["accountId"] for page in users for row in page] == acme.ids("users")
    issue = acme.ids("issues")[3]
    got = (await world.get(acme, f"{base(acme)}/issue/{issue}/comment", {"startAt": "4", "maxResults": "4"})).body
    assert (got["startAt"], got["maxResults"], got["total"]) == (4, 4, 6)
    assert [row["id"] for row in got["comments"]] == acme.ids("comments", issue)[4:]
    assert got["comments"][0]["body"]["type"] == "doc"
    missing = await world.get(acme, f"{base(acme)}/issue/99999999/comment")
    assert (missing.status, set(missing.body)) == (404, {"errorMessages", "errors"})


async def test_what_happens_to_users_and_by_comments(world: World) -> None:
    acme = world.thirds.account("jira", "acme")
    (gone,) = acme.delete("users", acme.ids("users")[2:3])
    rows = (await world.get(acme, f"{base(acme)}/users/search")).body
    assert [row["accountId"] for row in rows if not row["active"]] == [gone]
    world.now += 60
    issue = acme.ids("issues")[5]
    acme.add("comments", parent=issue)
    assert [row["id"] for row in await search(world, acme, "updated >= -1m")] == [issue]
    (made,) = acme.add("issues")
    assert (await world.get(acme, f"{base(acme)}/issue/{made}/comment")).body["total"] == 0


async def test_points_are_of_the_app_and_come_back_at_the_full_hour(world: World) -> None:
    acme = world.thirds.account("jira", "acme", limits={"points": 60})
    other = world.thirds.account("jira", "other")
    got = await world.get(acme, f"{base(acme)}/search/jql", {"jql": EVERYTHING, "maxResults": "50"})
    assert got.headers["Beta-RateLimit"] == '"global-app-quota";r=9;t=2795'
    assert got.headers["X-RateLimit-NearLimit"] == "true"
    assert (await world.get(other, f"{base(other)}/search/jql", {"jql": EVERYTHING})).status == 200, "it overshoots"
    refused = await world.get(acme, f"{base(acme)}/project/search")
    assert refused.status == 429
    assert {name: refused.headers[name] for name in ("Retry-After", "X-RateLimit-Remaining", "RateLimit-Reason")} == {
        "Retry-After": "2795",
        "X-RateLimit-Remaining": "0",
        "RateLimit-Reason": "jira-quota-global-based",
    }
    assert refused.headers["X-RateLimit-Limit"] == "60"
    assert refused.headers["X-RateLimit-Reset"] == "2026-09-21T15:00:00Z"
    world.now += 2795
    assert (await world.get(acme, f"{base(acme)}/project/search")).status == 200


async def test_a_burst_is_of_one_site_and_endpoint(world: World) -> None:
    acme = world.thirds.account("jira", "acme", limits={"burst": 3})
    other = world.thirds.account("jira", "other", limits={"burst": 3})
    path = f"{base(acme)}/project/search"
    assert [(await world.get(acme, path)).headers["X-RateLimit-Remaining"] for _ in range(3)] == ["2", "1", "0"]
    refused = await world.get(acme, path)
    assert (refused.status, refused.headers["RateLimit-Reason"]) == (429, "jira-burst-based")
    assert (refused.headers["Retry-After"], refused.headers["X-RateLimit-Limit"]) == ("1", "3")
    assert refused.headers["X-RateLimit-Reset"] == "2026-09-21T14:13:26Z"
    assert (await world.get(acme, f"{base(acme)}/users/search")).status == 200
    assert (await world.get(other, f"{base(other)}/project/search")).status == 200
    world.now += 1
    assert (await world.get(acme, path)).status == 200


async def test_tokens(world: World) -> None:
    acme = world.thirds.account("jira", "acme")
    wrong = await world.get(acme, f"{base(acme)}/project/search", token="wrong")
    assert (wrong.status, wrong.body) == (401, {"code": 401, "message": "Unauthorized"})
    assert (await world.get(acme, "/ex/jira/another-site/rest/api/3/project/search")).status == 404
    world.now += 3600
    assert (await world.get(acme, f"{base(acme)}/project/search")).status == 401
    body = {
        "grant_type": "refresh_token",
        "refresh_token": acme.refresh_token,
        "client_id": acme.client_id,
        "client_secret": acme.client_secret,
    }
    got = await world.post(acme, "/oauth/token", auth=False, json=body)
    assert set(got.body) == {"access_token", "refresh_token", "expires_in", "token_type", "scope"}
    assert (await world.get(acme, f"{base(acme)}/project/search")).status == 200
    again = await world.post(acme, "/oauth/token", auth=False, data=body)
    assert (again.status, again.body["error"]) == (403, "invalid_grant")
