from base64 import b64encode
from typing import Any

from simulator.vendors import Account
from tests.simulator.conftest import World


async def versions(world: World, account: Account, file: str, size: int) -> list[dict[str, Any]]:
    """Follows prev_page, which leads to the older ones, until it is missing."""
    got = await world.get(account, f"/v1/files/{file}/versions", {"page_size": str(size)})
    found: dict[str, dict[str, Any]] = {row["id"]: row for row in got.body["versions"]}
    while "prev_page" in got.body["pagination"]:
        got = await world.get(account, got.body["pagination"]["prev_page"].replace(" ", "%20"))
        assert got.status == 200, got.text
        found |= {row["id"]: row for row in got.body["versions"]}
    return list(found.values())


async def test_projects_files_and_comments_come_at_once(world: World) -> None:
    acme = world.thirds.account("figma", "acme")
    team = acme.options["team_id"]
    got = (await world.get(acme, f"/v1/teams/{team}/projects")).body
    assert (list(got), got["name"]) == (["name", "projects"], "acme's team")
    assert [row["id"] for row in got["projects"]] == acme.ids("projects")
    assert set(got["projects"][0]) == {"id", "name"}
    project = got["projects"][1]["id"]
    files = (await world.get(acme, f"/v1/projects/{project}/files")).body
    assert files["name"] == got["projects"][1]["name"]
    assert [row["key"] for row in files["files"]] == acme.ids("files", project)
    assert set(files["files"][0]) == {"key", "name", "thumbnail_url", "last_modified"}
    assert len(files["files"][0]["key"]) == 22
    key = files["files"][2]["key"]
    comments = (await world.get(acme, f"/v1/files/{key}/comments")).body["comments"]
    assert [row["id"] for row in comments] == acme.ids("comments", key)[::-1], "the newest first"
    assert set(comments[0]) == {
        *("id", "uuid", "file_key", "parent_id", "user", "created_at", "resolved_at", "message", "reactions"),
        *("client_meta", "order_id"),
    }


async def test_versions_to_the_oldest(world: World) -> None:
    acme = world.thirds.account("figma", "acme", sizes={"versions": 7})
    file = acme.ids("files")[0]
    newest_first = acme.ids("versions", file)[::-1]
    assert [row["id"] for row in await versions(world, acme, file, 3)] == newest_first
    first = (await world.get(acme, f"/v1/files/{file}/versions", {"page_size": "3"})).body
    assert set(first["pagination"]) == {"prev_page"}
    assert set(first["versions"][0]) == {"id", "created_at", "label", "description", "user", "thumbnail_url"}
    assert " UTC&secondary_before=" in first["pagination"]["prev_page"], "it is not encoded"
    second = (await world.get(acme, first["pagination"]["prev_page"].replace(" ", "%20"))).body
    assert [row["id"] for row in second["versions"]] == newest_first[3:6]
    back = (await world.get(acme, second["pagination"]["next_page"].replace(" ", "%20"))).body
    assert back["versions"] == first["versions"]


async def test_versions_that_fit_a_page_have_a_prev_page_that_leads_to_the_same(world: World) -> None:
    acme = world.thirds.account("figma", "acme")
    file = acme.ids("files")[0]
    first = (await world.get(acme, f"/v1/files/{file}/versions")).body
    again = (await world.get(acme, first["pagination"]["prev_page"].replace(" ", "%20"))).body
    assert again["versions"] == first["versions"]
    assert set(again["pagination"]) == {"next_page"}


async def test_components_go_on_from_a_number(world: World) -> None:
    acme = world.thirds.account("figma", "acme", sizes={"components": 70})
    path = f"/v1/teams/{acme.options['team_id']}/components"
    got = (await world.get(acme, path)).body
    assert (got["error"], got["status"], got["i18n"]) == (False, 200, None)
    rows = got["meta"]["components"]
    assert len(rows) == 30
    while "after" in got["meta"]["cursor"]:
        assert isinstance(got["meta"]["cursor"]["after"], int)
        got = (await world.get(acme, path, {"after": str(got["meta"]["cursor"]["after"])})).body
        rows += got["meta"]["components"]
    assert [row["key"] for row in rows] == acme.ids("components")


async def test_a_version_changes_its_file(world: World) -> None:
    acme = world.thirds.account("figma", "acme")
    project = acme.ids("projects")[0]
    before = (await world.get(acme, f"/v1/projects/{project}/files")).body["files"]
    world.now += 60
    acme.add("versions", parent=before[1]["key"])
    acme.add("comments", parent=before[2]["key"])
    after = (await world.get(acme, f"/v1/projects/{project}/files")).body["files"]
    assert [row["key"] for row in after if row not in before] == [before[1]["key"]]
    assert after[1]["last_modified"] == "2026-09-21T14:14:25Z"


async def test_tiers_are_refused_in_both_forms(world: World) -> None:
    acme = world.thirds.account("figma", "acme", limits={"tier2": 2, "tier3": 1})
    team = acme.options["team_id"]
    got = await world.get(acme, f"/v1/teams/{team}/projects")
    assert not any("limit" in name.lower() for name in got.headers), "nothing is said before"
    world.now += 5
    file = acme.ids("files")[0]
    assert (await world.get(acme, f"/v1/files/{file}/comments")).status == 200
    refused = await world.get(acme, f"/v1/files/{file}/versions")
    assert (refused.status, refused.body) == (429, {"status": 429, "err": "Rate limit exceeded"})
    assert {
        name: refused.headers[name] for name in ("Retry-After", "X-Figma-Plan-Tier", "X-Figma-Rate-Limit-Type")
    } == {
        "Retry-After": "55",
        "X-Figma-Plan-Tier": "pro",
        "X-Figma-Rate-Limit-Type": "high",
    }
    assert "X-Figma-Upgrade-Link" in refused.headers
    assert (await world.get(acme, f"/v1/teams/{team}/components")).status == 200
    other = await world.get(acme, f"/v1/teams/{team}/components")
    assert other.status == 429
    assert (other.body["error"], other.body["status"]) == (True, 429)
    world.now += 55
    assert (await world.get(acme, f"/v1/files/{file}/versions")).status == 200


async def test_tokens(world: World) -> None:
    acme = world.thirds.account("figma", "acme")
    path = f"/v1/teams/{acme.options['team_id']}/projects"
    wrong = await world.get(acme, path, token="wrong")
    assert (wrong.status, wrong.body) == (403, {"status": 403, "err": "Invalid token"})
    personal = await world.get(acme, path, headers={"X-Figma-Token": acme.access_token}, token="")
    assert personal.status == 200
    acme.expire()
    assert (await world.get(acme, path)).body["err"] == "Token expired"
    basic = {"Authorization": "Basic " + b64encode(f"{acme.client_id}:{acme.client_secret}".encode()).decode()}
    form = {"refresh_token": acme.refresh_token}
    assert (await world.post(acme, "/v1/oauth/refresh", auth=False, data=form)).status == 401
    got = await world.post(acme, "/v1/oauth/refresh", auth=False, data=form, headers=basic)
    assert got.body == {"access_token": acme.access_token, "token_type": "bearer", "expires_in": 7_776_000}
    assert form["refresh_token"] == acme.refresh_token, "it does not rotate"
    assert (await world.get(acme, path)).status == 200
    assert (await world.get(acme, "/v1/teams/1/projects")).body == {"status": 404, "err": "Not found"}
    assert (await world.get(acme, "/v1/files/none/comments")).status == 404
