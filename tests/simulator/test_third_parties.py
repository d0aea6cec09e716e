import json
import random
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import pytest

from simulator.credentials import SLACK_TOKEN
from simulator.stage import Simulator
from tests.simulator.conftest import World


async def test_all_over_http(world: World) -> None:
    made = await world.control(
        "POST", "/accounts/slack", {"name": "acme", "sizes": {"messages": 20}, "options": {"small_history": True}}
    )
    assert made.status == 201
    assert set(made.body) >= {"base_url", "access_token", "refresh_token", "client_id", "client_secret", "options"}
    acme = world.thirds.vendors["slack"].accounts["acme"]
    assert acme.access_token == made.body["access_token"]
    assert made.body["base_url"].endswith("/sim/slack")
    listed = (await world.control("GET", "/accounts/slack/acme/items/messages")).body
    assert listed["count"] == len(listed["ids"]) == 80
    added = await world.control("POST", "/accounts/slack/acme/items", {"action": "add", "kind": "messages", "count": 3})
    assert len(added.body["ids"]) == 3
    for action in ("change", "delete"):
        body = {"action": action, "kind": "messages", "ids": added.body["ids"]}
        assert (await world.control("POST", "/accounts/slack/acme/items", body)).body == added.body
    settings = {"sizes": {"messages": 5}, "limits": {"users.list": 1}, "token": "expire"}
    assert (await world.control("PATCH", "/accounts/slack/acme", settings)).body["sizes"]["messages"] == 5
    assert acme.count("messages") == 20
    assert (await world.get(acme, "/api/users.list")).body["error"] == "token_expired"
    await world.control("PATCH", "/accounts/slack/acme", {"token": "restore"})
    assert (await world.get(acme, "/api/users.list")).status == 200
    assert (await world.get(acme, "/api/users.list")).status == 429
    eat = {"quota": "conversations.list", "amount": 20, "scope": "acme"}
    assert (await world.control("POST", "/accounts/slack/acme/eat", eat)).status == 204
    assert (await world.get(acme, "/api/conversations.list")).status == 429
    fault = {"kind": "error", "vendor": "slack", "status": 500}
    assert (await world.control("POST", "/faults", fault)).status == 204
    assert (await world.control("DELETE", "/faults")).status == 204
    got = (await world.control("GET", "/statistics?vendor=slack")).body
    (vendor,) = got["vendors"]
    assert (vendor["requests"], vendor["refusals"], vendor["refused_own"], vendor["refused_surprise"]) == (4, 2, 1, 1)
    assert vendor["by_status"] == {"200": 2, "429": 2}
    quotas = {each["quota"]: each["counts"] for each in got["quotas"]}
    assert (quotas["users.list"]["taken"], quotas["users.list"]["refused"], quotas["users.list"]["used"]) == (1, 1, 1)
    assert (await world.control("DELETE", "/statistics")).status == 204
    assert (await world.control("GET", "/statistics")).body["quotas"] == []
    assert [each["name"] for each in (await world.control("GET", "/accounts")).body] == ["acme"]
    assert (await world.control("GET", "/accounts/slack/acme")).body["name"] == "acme"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/accounts/nobody", {}, 404),
        ("POST", "/accounts/github", {"sizes": {"stars": 1}}, 422),
        ("POST", "/accounts/github", {"limits": {"stars": 1}}, 422),
        ("POST", "/accounts/github", {"options": {"stars": 1}}, 422),
        ("POST", "/accounts/github", {"name": "A b"}, 422),
        ("POST", "/accounts/github", {"stars": 1}, 422),
        ("GET", "/accounts/github/nobody", None, 404),
        ("POST", "/faults", {"kind": "earthquake"}, 422),
        ("PUT", "/speed", {"speed": 0}, 422),
    ],
)
async def test_nonsense_is_refused(world: World, method: str, path: str, body: object, status: int) -> None:
    got = await world.control(method, path, body)
    assert (got.status, "error" in got.body) == (status, True)


async def test_an_hour_in_six_minutes(world: World) -> None:
    acme = world.thirds.account("github", "acme", limits={"primary": 1})
    assert (await world.control("PUT", "/speed", {"speed": 10})).status == 204
    got = await world.get(acme, "/user/repos")
    assert int(got.headers["x-ratelimit-reset"]) - int(world.now) <= 361
    assert (await world.get(acme, "/user/repos")).status == 403
    world.now += 360
    assert (await world.get(acme, "/user/repos")).status == 200


async def test_other_limits_from_now_on(world: World) -> None:
    acme = world.thirds.account("github", "acme")
    await world.get(acme, "/user/repos")
    world.thirds.set_limits(acme, {"primary": 3})
    assert (await world.get(acme, "/user/repos")).headers["x-ratelimit-remaining"] == "1"
    world.thirds.eat(acme, "primary", 100)
    assert (await world.get(acme, "/user/repos")).status == 403
    with pytest.raises(ValueError, match="primary"):
        world.thirds.set_limits(acme, {"stars": 1})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("speed", [1, 7])
async def test_waiting_as_long_as_a_refusal_says_is_enough_for_every_vendor(
    world: World, seed: int, speed: float
) -> None:
    dice = random.Random(seed)
    world.thirds.speed = speed
    world.now += dice.random() * 4000
    limits: dict[str, dict[str, float]] = {
        "github": {"primary": 3},
        "jira": {"points": 4},
        "figma": {"tier2": 3},
        "slack": {"users.list": 3},
    }
    for vendor, own in limits.items():
        acme = world.thirds.account(vendor, "acme", limits=own, token_seconds=1_000_000)
        path = {
            "github": "/user/repos",
            "jira": f"/ex/jira/{acme.options.get('cloud_id')}/rest/api/3/users/search",
            "figma": f"/v1/teams/{acme.options.get('team_id')}/projects",
            "slack": "/api/users.list",
        }[vendor]
        refused = 0
        for _ in range(40):
            got = await world.get(acme, path)
            if got.status == 200:
                world.now += dice.random()
                continue
            refused += 1
            told = parsedate_to_datetime(got.headers["Date"]).timestamp()
            if "Retry-After" in got.headers:
                wait = float(got.headers["Retry-After"])
            else:
                wait = float(got.headers["X-RateLimit-Reset"]) - told
            if "X-RateLimit-Reset" in got.headers and vendor == "jira":
                at = datetime.fromisoformat(got.headers["X-RateLimit-Reset"]).timestamp()
                assert 0 <= at - told - wait <= 2
            world.now += wait
            assert (await world.get(acme, path)).status == 200
        assert refused > 3


async def test_an_even_client_uses_nearly_all_and_is_never_refused(world: World) -> None:
    acme = world.thirds.account("slack", "acme")
    for _ in range(200):
        assert (await world.get(acme, "/api/users.list", {"limit": "1"})).status == 200
        world.now += 60 / 19.4
    world.now += 5000
    (statistics,) = world.thirds.statistics("slack")
    assert statistics.counts.refused == 0
    assert statistics.counts.used == pytest.approx(0.97, abs=0.01)
    assert world.thirds.summary()["slack"].requests == 200


def test_accounts_share_no_identifier_and_no_token(world: World) -> None:
    for vendor in world.thirds.vendors:
        one, other = (world.thirds.account(vendor) for _ in range(2))
        assert one.access_token != other.access_token
        kinds = world.thirds.vendors[vendor].tree
        for kind in kinds:
            mine, theirs = one.ids(kind), other.ids(kind)
            assert len(mine) == len(set(mine)) == len(theirs)
            assert not set(mine) & set(theirs) or (vendor, kind) in {
                ("jira", "projects"),
                ("jira", "issues"),
                ("jira", "comments"),
            }, "Jira's count from the same number in every site"
            assert all(one.find(kind, each) is not None for each in mine)


async def test_in_the_simulator_beside_notifications(tmp_path: Path) -> None:
    async with Simulator(folder=tmp_path, speed=5) as sim, aiohttp.ClientSession() as session:
        assert sim.thirds.speed == 5
        acme = sim.thirds.account("slack", "acme")
        headers = {"Authorization": f"Bearer {acme.access_token}"}
        async with session.get(f"{acme.base_url}/api/conversations.list", headers=headers) as answer:
            assert len((await answer.json())["channels"]) == 4
        async with session.post(
            f"{sim.http_url}/slack/api/chat.postMessage",
            headers={"Authorization": f"Bearer {SLACK_TOKEN}"},
            json={"channel": "C1", "text": "hello"},
        ) as answer:
            assert json.loads(await answer.text())["ok"] is True
        async with session.get(f"{sim.http_url}/control/vendors/statistics") as answer:
            assert {each["vendor"] for each in (await answer.json())["vendors"]} == set(sim.thirds.vendors)
