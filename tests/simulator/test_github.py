import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from simulator.vendors import Account
from tests.simulator.conftest import BEGIN, Got, World

ISSUE = {
    *("url", "repository_url", "labels_url", "comments_url", "events_url", "html_url", "id", "node_id", "number"),
    *("title", "user", "labels", "state", "locked", "assignees", "milestone", "comments", "created_at", "updated_at"),
    *("closed_at", "assignee", "author_association", "active_lock_reason", "body", "closed_by", "reactions"),
    *("timeline_url", "performed_via_github_app", "state_reason"),
}
OF_ISSUES = {"sub_issues_summary", "issue_dependencies_summary", "pinned_comment"}
OF_PULLS = {"draft", "pull_request"}
COMMENT = {
    *("url", "html_url", "issue_url", "id", "node_id", "user", "created_at", "updated_at", "body"),
    *("author_association", "pin", "reactions", "performed_via_github_app"),
}
ALL = {"state": "all", "sort": "updated", "direction": "asc", "per_page": "100"}


def links(got: Got) -> dict[str, str]:
    return {name: url for url, name in re.findall(r'<([^>]*)>; rel="(\w+)"', got.headers.get("Link", ""))}


async def everything(world: World, account: Account, path: str, params: dict[str, str]) -> list[dict[str, Any]]:
    """Follows the Link header."""
    got = await world.get(account, path, params)
    rows: list[dict[str, Any]] = got.body
    while "next" in links(got):
        got = await world.get(account, links(got)["next"])
        assert got.status == 200, got.text
        rows += got.body
    return rows


async def test_repositories(world: World) -> None:
    acme = world.thirds.account("github", "acme", sizes={"repos": 5})
    got = await world.get(acme, "/user/repos", {"per_page": "2"})
    assert [row["full_name"] for row in got.body] == ["acme/service-001", "acme/service-002"]
    assert got.body[0]["owner"]["login"] == "acme"
    assert got.body[0]["permissions"]["pull"] is True
    assert links(got)["last"].endswith("per_page=2&page=3")
    rows = await everything(world, acme, "/user/repos", {"per_page": "2"})
    assert [str(row["id"]) for row in rows] == acme.ids("repos")


async def test_issues_have_githubs_fields_and_pull_requests_among_them(world: World) -> None:
    acme = world.thirds.account("github", "acme")
    for row in (await world.get(acme, "/repos/acme/service-001/issues", ALL)).body:
        assert set(row) == ISSUE | (OF_PULLS if "pull_request" in row else OF_ISSUES)
        assert row["html_url"].split("/")[-2:] == ["pull" if "pull_request" in row else "issues", str(row["number"])]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["updated_at"])
        assert (row["state"] == "closed") == (row["closed_at"] is not None)
        assert row["comments"] == 2


async def test_issues_are_paged_by_a_cursor_on_another_path(world: World) -> None:
    acme = world.thirds.account("github", "acme", sizes={"repos": 1, "issues": 230})
    got = await world.get(acme, "/repos/acme/service-001/issues", ALL)
    following = links(got)
    assert set(following) == {"next"}
    path, _, query = following["next"].removeprefix(acme.base_url).partition("?")
    repo = (await world.get(acme, "/user/repos")).body[0]["id"]
    assert path == f"/repositories/{repo}/issues"
    assert dict(parse_qsl(query)) == {**ALL, "after": dict(parse_qsl(query))["after"], "page": "2"}
    rows = await everything(world, acme, "/repos/acme/service-001/issues", ALL)
    assert [str(row["id"]) for row in rows] == acme.ids("issues")
    assert [row["updated_at"] for row in rows] == sorted(row["updated_at"] for row in rows)
    newest = await everything(world, acme, "/repos/acme/service-001/issues", ALL | {"direction": "desc"})
    assert newest == rows[::-1]


async def test_the_default_is_open_issues_the_newest_first_thirty_a_page(world: World) -> None:
    acme = world.thirds.account("github", "acme", sizes={"issues": 100})
    rows = (await world.get(acme, "/repos/acme/service-001/issues")).body
    assert len(rows) == 30
    assert {row["state"] for row in rows} == {"open"}
    assert [row["number"] for row in rows] == sorted((row["number"] for row in rows), reverse=True)
    second = (await world.get(acme, "/repos/acme/service-001/issues", {"page": "2"})).body
    assert second[0]["number"] < rows[-1]["number"]


async def test_since_finds_what_changed_then_or_later(world: World) -> None:
    acme = world.thirds.account("github", "acme", sizes={"repos": 1})
    since = {"since": datetime.fromtimestamp(BEGIN, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    path = "/repos/acme/service-001/issues"
    assert (await world.get(acme, path, ALL | since)).body == []
    world.now += 60
    changed = acme.change("issues", count=3) + acme.add("issues", count=2)
    rows = (await world.get(acme, path, ALL | since)).body
    assert [str(row["id"]) for row in rows] == changed
    assert all("revision 1" in row["title"] for row in rows[:3])
    deleted = acme.delete("issues", count=1)
    rows = (await world.get(acme, path, ALL)).body
    assert len(rows) == 41
    assert deleted[0] not in {str(row["id"]) for row in rows}


async def test_an_issue_that_changes_while_it_is_paged_is_seen_again_and_none_is_missed(world: World) -> None:
    acme = world.thirds.account("github", "acme", sizes={"repos": 1, "issues": 250})
    got = await world.get(acme, "/repos/acme/service-001/issues", ALL)
    seen = [row["id"] for row in got.body]
    world.now += 1
    acme.change("issues", count=30)
    while "next" in links(got):
        got = await world.get(acme, links(got)["next"])
        seen += [row["id"] for row in got.body]
    assert {str(each) for each in seen} == set(acme.ids("issues"))
    assert len(seen) > 250


async def test_comments_are_paged_by_number_and_change_their_issue(world: World) -> None:
    acme = world.thirds.account("github", "acme", sizes={"repos": 2, "issues": 30, "comments": 5})
    path = "/repos/acme/service-002/issues/comments"
    got = await world.get(acme, path, {"per_page": "60", "page": "2"})
    assert set(links(got)) == {"prev", "next", "last", "first"}
    rows = await everything(world, acme, path, {"per_page": "60", "sort": "updated", "direction": "asc"})
    assert [str(row["id"]) for row in rows] == acme.ids("comments", "acme/service-002")
    assert all(set(row) == COMMENT for row in rows)
    of_first = (await world.get(acme, "/repos/acme/service-002/issues/1/comments")).body
    assert of_first == [row for row in rows if row["issue_url"].endswith("/issues/1")]
    world.now += 10
    issue = acme.ids("issues", "acme/service-002")[7]
    (made,) = acme.add("comments", parent="acme/service-002", about=issue)
    latest = (await world.get(acme, "/repos/acme/service-002/issues", ALL | {"direction": "desc"})).body[0]
    assert (str(latest["id"]), latest["comments"]) == (issue, 6)
    comments = (await world.get(acme, f"/repos/acme/service-002/issues/{latest['number']}/comments")).body
    assert str(comments[-1]["id"]) == made
    acme.delete("issues", [issue])
    assert acme.count("comments", "acme/service-002") == 145
    assert (await world.get(acme, f"/repos/acme/service-002/issues/{latest['number']}/comments")).status == 404


async def test_pull_requests(world: World) -> None:
    acme = world.thirds.account("github", "acme")
    rows = await everything(world, acme, "/repos/acme/service-001/pulls", {"state": "all", "per_page": "3"})
    issues = (await world.get(acme, "/repos/acme/service-001/issues", {"state": "all", "per_page": "100"})).body
    assert [row["number"] for row in rows] == [row["number"] for row in issues if "pull_request" in row]
    assert rows[0]["base"]["repo"]["full_name"] == "acme/service-001"
    assert set(rows[0]["_links"]) >= {"self", "html", "issue", "comments", "commits", "statuses"}


async def test_every_answer_tells_the_limit_in_seconds_of_the_epoch(world: World) -> None:
    acme = world.thirds.account("github", "acme")
    for used in (1, 2):
        got = await world.get(acme, "/user/repos")
        assert {name: got.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "used", "resource")} == {
            "limit": "5000",
            "remaining": str(5000 - used),
            "used": str(used),
            "resource": "core",
        }
        assert int(got.headers["x-ratelimit-reset"]) == 1_790_003_606
        assert got.headers["Date"] == "Mon, 21 Sep 2026 14:13:25 GMT"
    missing = await world.get(acme, "/repos/acme/nothing/issues")
    assert (missing.status, missing.headers["x-ratelimit-used"]) == (404, "3")
    assert missing.body == {
        "message": "Not Found",
        "documentation_url": "https://docs.github.com/rest",
        "status": "404",
    }


async def test_the_primary_limit_is_403_with_nothing_left(world: World) -> None:
    acme = world.thirds.account("github", "acme", limits={"primary": 2})
    other = world.thirds.account("github", "other", limits={"primary": 2})
    for _ in range(2):
        assert (await world.get(acme, "/user/repos")).status == 200
    world.now += 100
    refused = await world.get(acme, "/user/repos")
    assert (refused.status, refused.headers["x-ratelimit-remaining"]) == (403, "0")
    assert "retry-after" not in refused.headers
    assert refused.body["message"].startswith("API rate limit exceeded for user ID")
    assert (await world.get(other, "/user/repos")).status == 200
    world.now = float(refused.headers["x-ratelimit-reset"])
    assert (await world.get(acme, "/user/repos")).status == 200


async def test_the_secondary_limit_is_403_with_retry_after(world: World) -> None:
    acme = world.thirds.account("github", "acme", limits={"secondary": 3})
    for _ in range(3):
        await world.get(acme, "/user/repos")
        world.now += 10
    refused = await world.get(acme, "/user/repos")
    assert (refused.status, refused.headers["retry-after"]) == (403, "30")
    assert "secondary rate limit" in refused.body["message"]
    assert refused.headers["x-ratelimit-remaining"] == "4997", "what is refused is not used"
    world.now += 30
    assert (await world.get(acme, "/user/repos")).status == 200


async def test_what_has_not_changed_costs_nothing(world: World) -> None:
    acme = world.thirds.account("github", "acme")
    first = await world.get(acme, "/user/repos")
    again = await world.get(acme, "/user/repos", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.text, again.headers["x-ratelimit-used"]) == (304, "", "1")
    acme.change("repos")
    assert (await world.get(acme, "/user/repos", headers={"If-None-Match": first.headers["ETag"]})).status == 200


async def test_tokens_are_refreshed_once_each(world: World) -> None:
    acme = world.thirds.account("github", "acme")
    before = acme.access_token
    form = {
        "grant_type": "refresh_token",
        "refresh_token": acme.refresh_token,
        "client_id": acme.client_id,
        "client_secret": acme.client_secret,
    }
    world.now += 28_800
    expired = await world.get(acme, "/user/repos")
    assert (expired.status, expired.body["message"]) == (401, "Bad credentials")
    json = {"Accept": "application/json"}
    got = await world.post(acme, "/login/oauth/access_token", auth=False, data=form, headers=json)
    assert got.body["access_token"] == acme.access_token != before
    assert got.body["expires_in"] == 28_800
    assert (await world.get(acme, "/user/repos")).status == 200
    again = await world.post(acme, "/login/oauth/access_token", auth=False, data=form, headers=json)
    assert (again.status, again.body["error"]) == (200, "bad_refresh_token")
    form |= {"refresh_token": acme.refresh_token, "client_secret": "wrong"}
    wrong = await world.post(acme, "/login/oauth/access_token", auth=False, data=form)
    assert wrong.text.startswith("error=incorrect_client_credentials")
    acme.revoke()
    assert (await world.get(acme, "/user/repos")).status == 401


async def test_a_very_large_account(world: World) -> None:
    acme = world.thirds.account("github", "acme", sizes={"repos": 1, "issues": 200_000, "comments": 2})
    got = await world.get(acme, "/repos/acme/service-001/issues", ALL)
    for _ in range(3):
        got = await world.get(acme, links(got)["next"])
        assert len(got.body) == 100
    assert got.body[-1]["number"] == 400
    comments = {"sort": "updated", "direction": "asc", "per_page": "100", "page": "4000"}
    got = await world.get(acme, "/repos/acme/service-001/issues/comments", comments)
    assert len(got.body) == 100
    assert "next" not in links(got)
