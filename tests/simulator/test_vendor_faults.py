import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from pydantic import ValidationError

from simulator.vendors import Account
from tests.simulator.conftest import Got, World

ALL = {"state": "all", "sort": "updated", "direction": "asc", "per_page": "10"}
JQL = {"jql": 'updated >= "1970-01-01" ORDER BY updated ASC', "fields": "*all", "maxResults": "10"}


@pytest_asyncio.fixture
async def accounts(world: World) -> AsyncIterator[dict[str, tuple[Account, str, dict[str, str], str]]]:
    """Each vendor's account, a path with pages, its parameters, and where the rows are."""
    made = {name: world.thirds.account(name, "acme") for name in world.thirds.vendors}
    figma, slack = made["figma"], made["slack"]
    channel = slack.ids("channels")[0]
    yield {
        "github": (made["github"], "/repos/acme/service-001/issues", ALL, ""),
        "jira": (made["jira"], f"/ex/jira/{made['jira'].options['cloud_id']}/rest/api/3/search/jql", JQL, "issues"),
        "figma": (figma, f"/v1/files/{figma.ids('files')[0]}/versions", {"page_size": "2"}, "versions"),
        "slack": (slack, "/api/conversations.history", {"channel": channel, "limit": "10"}, "messages"),
    }


def rows_of(got: Got, field: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = got.body[field] if field else got.body
    return rows


def next_of(vendor: str, got: Got) -> str:
    if vendor == "github":
        return got.headers.get("Link", "").partition(">")[0].removeprefix("<")
    if vendor == "figma":
        return str(got.body["pagination"].get("prev_page", ""))
    if vendor == "jira":
        return str(got.body.get("nextPageToken", ""))
    return str(got.body.get("response_metadata", {}).get("next_cursor", ""))


async def page(world: World, accounts: dict[str, Any], vendor: str, cursor: str = "") -> Got:
    account, path, params, _ = accounts[vendor]
    if cursor.startswith("http"):
        return await world.get(account, cursor.replace(" ", "%20"))
    name = {"jira": "nextPageToken", "slack": "cursor"}.get(vendor, "")
    return await world.get(account, path, params | ({name: cursor} if cursor else {}))


VENDORS = pytest.mark.parametrize("vendor", ["github", "jira", "figma", "slack"])


@VENDORS
async def test_errors_in_the_vendors_form_and_as_html(world: World, accounts: dict[str, Any], vendor: str) -> None:
    world.thirds.fault("error", vendor=vendor, status=502, times=2, retry_after=7)
    for _ in range(2):
        got = await page(world, accounts, vendor)
        assert (got.status, got.headers["Retry-After"]) == (502, "7")
        assert isinstance(got.body, dict)
    world.thirds.fault("error", vendor=vendor, status=503, html=True)
    got = await page(world, accounts, vendor)
    assert (got.status, got.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert "<h1>503 Service Unavailable</h1>" in got.text
    assert (await page(world, accounts, vendor)).status == 200
    assert all(each.counts.taken == 1 for each in world.thirds.statistics(vendor)), "what fails uses no quota"


@VENDORS
async def test_a_malformed_row_among_good_ones(world: World, accounts: dict[str, Any], vendor: str) -> None:
    good = rows_of(await page(world, accounts, vendor), accounts[vendor][3])
    world.thirds.fault("malformed_row", vendor=vendor)
    got = rows_of(await page(world, accounts, vendor), accounts[vendor][3])
    spoiled = [row for row, was in zip(got, good, strict=True) if row != was]
    assert [row["ts" if vendor == "slack" else "id"] for row in spoiled] == [None]
    world.thirds.fault("malformed_row", vendor=vendor, field="user")
    got = rows_of(await page(world, accounts, vendor), accounts[vendor][3])
    assert [row["user"] for row in got if row.get("user") == {"oops": True}] == [{"oops": True}]


@VENDORS
async def test_a_changed_schema(world: World, accounts: dict[str, Any], vendor: str) -> None:
    field = {"github": "user.login", "jira": "fields.updated", "figma": "created_at", "slack": "ts"}[vendor]
    outer, _, inner = field.partition(".")
    world.thirds.fault("missing_field", vendor=vendor, field=field)
    for row in rows_of(await page(world, accounts, vendor), accounts[vendor][3]):
        assert (inner not in row[outer]) if inner else (outer not in row)
    world.thirds.fault("renamed_field", vendor=vendor, field=field, to="renamed_to")
    for row in rows_of(await page(world, accounts, vendor), accounts[vendor][3]):
        assert "renamed_to" in (row[outer] if inner else row)
    assert "renamed_to" not in (await page(world, accounts, vendor)).text


@VENDORS
async def test_a_page_that_names_itself_as_the_next(world: World, accounts: dict[str, Any], vendor: str) -> None:
    first = await page(world, accounts, vendor)
    world.thirds.fault("repeated_cursor", vendor=vendor, times=None)
    second = await page(world, accounts, vendor, next_of(vendor, first))
    again = await page(world, accounts, vendor, next_of(vendor, second))
    assert rows_of(again, accounts[vendor][3]) == rows_of(second, accounts[vendor][3])
    assert next_of(vendor, again) == next_of(vendor, second)


@VENDORS
async def test_an_empty_page_loses_nothing(world: World, accounts: dict[str, Any], vendor: str) -> None:
    first = await page(world, accounts, vendor)
    second = await page(world, accounts, vendor, next_of(vendor, first))
    world.thirds.fault("empty_page", vendor=vendor)
    empty = await page(world, accounts, vendor, next_of(vendor, first))
    assert rows_of(empty, accounts[vendor][3]) == []
    behind = await page(world, accounts, vendor, next_of(vendor, empty))
    assert rows_of(behind, accounts[vendor][3]) == rows_of(second, accounts[vendor][3])


@VENDORS
async def test_slow_down_and_revoke(world: World, accounts: dict[str, Any], vendor: str) -> None:
    world.thirds.fault("slow_down", vendor=vendor, retry_after=30)
    got = await page(world, accounts, vendor)
    assert (got.status, got.headers["Retry-After"]) == (200, "30")
    world.thirds.fault("revoke", vendor=vendor, skip=1)
    assert rows_of(await page(world, accounts, vendor), accounts[vendor][3])
    got = await page(world, accounts, vendor)
    assert got.status == {"github": 401, "jira": 401, "figma": 403, "slack": 200}[vendor]
    accounts[vendor][0].restore()
    assert rows_of(await page(world, accounts, vendor), accounts[vendor][3])


async def test_no_answer(world: World, accounts: dict[str, Any]) -> None:
    account, path, params, _ = accounts["github"]
    world.thirds.fault("timeout", vendor="github", seconds=0.5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.get(account, path, params), timeout=0.1)
    world.thirds.fault("reset", vendor="github")
    with pytest.raises(aiohttp.ClientError):
        await world.client.session.get(world.client.make_url(f"/sim/github{path}"))
    world.thirds.fault("slow", vendor="github", seconds=0.05)
    assert (await world.get(account, path, params)).status == 200


async def test_another_client_is_a_surprise(world: World, accounts: dict[str, Any]) -> None:
    account, path, params, _ = accounts["slack"]
    world.thirds.fault("other_client", vendor="slack", amount=60, skip=10)
    for _ in range(10):
        assert (await world.get(account, path, params)).status == 200
    assert (await world.get(account, path, params)).status == 429
    world.now += 5
    assert (await world.get(account, path, params)).status == 429
    (statistics,) = world.thirds.statistics("slack")
    counts = statistics.counts
    assert (statistics.quota, statistics.scope, statistics.limit) == ("conversations.history", "acme", 50)
    assert (counts.taken, counts.surprises, counts.eaten) == (10, 1, 40)
    assert (counts.refused_surprise, counts.refused_again, counts.refused_own) == (1, 1, 0)


async def test_other_clients_at_random_are_the_same_every_time() -> None:
    made = []
    for _ in range(2):
        world = World()
        world.thirds.fault("other_client", rate=0.3, amount=1, amount_most=5, times=None)
        made.append([bool(world.thirds.faults.due("github", "acme", "repos")) for _ in range(50)])
    assert made[0] == made[1]
    assert 5 < sum(made[0]) < 25


async def test_faults_are_of_an_account_or_endpoint(world: World, accounts: dict[str, Any]) -> None:
    other = world.thirds.account("github", "other")
    world.thirds.fault("error", account="other", endpoint="repos", times=None)
    assert (await world.get(accounts["github"][0], "/user/repos")).status == 200
    assert (await world.get(other, "/repos/other/service-001/issues")).status == 200
    assert (await world.get(other, "/user/repos")).status == 503
    world.thirds.faults.clear()
    assert (await world.get(other, "/user/repos")).status == 200


def test_a_fault_that_is_none(world: World) -> None:
    with pytest.raises(ValidationError):
        world.thirds.fault("earthquake")
