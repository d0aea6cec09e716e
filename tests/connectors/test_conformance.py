"""What holds for every connector and each of its resources. A new one brings its samples, and no test.

The samples of a connector are `VENDOR` in samples/<its name>.py, in the words of sample.py.
"""

import importlib
import string
from dataclasses import replace

import pytest
from pydantic import JsonValue, SecretStr

from activities.connectors.engine import ENOUGH_ROWS, Ask, Engine, Page
from activities.connectors.known import known
from activities.connectors.paging import Offset, OnePage
from activities.connectors.spec import PARENT, Connector, Credentials, Holder, KeptBy, Meaning, Resource
from tests.connectors.conftest import Vendor
from tests.connectors.sample import NOW, SINCE, TOKEN, Reply, ResourceSample, VendorSample

CONNECTORS = known()
VENDORS = {
    name: importlib.import_module(f"tests.connectors.samples.{name}").VENDOR  # without one, nothing is collected
    for name in CONNECTORS
}
RESOURCES = [(name, each.name) for name, connector in CONNECTORS.items() for each in connector.resources]
CURSORS_OF_THEIRS = [
    (name, resource)
    for name, resource in RESOURCES
    if not isinstance(CONNECTORS[name].resource(resource).paging, OnePage | Offset)
]
REFUSALS = [(name, each) for name, vendor in VENDORS.items() for each in vendor.refusals]
CREDENTIALS = Credentials(
    access_token=SecretStr(TOKEN), refresh_token=SecretStr(f"refresh-{TOKEN}"), client_secret=SecretStr(f"app-{TOKEN}")
)
PRIVATE = "what-a-customer-wrote"
BROKEN: JsonValue = {"words": PRIVATE}

each_resource = pytest.mark.parametrize(("provider", "resource"), RESOURCES)
each_connector = pytest.mark.parametrize("provider", list(CONNECTORS))


class Stage:
    """One resource of one connector at the local vendor."""

    def __init__(self, vendor: Vendor, engine: Engine, provider: str, resource: str) -> None:
        self.vendor = vendor
        self.engine = engine
        self.connector: Connector = CONNECTORS[provider].at(vendor.host)
        self.resource: Resource = self.connector.resource(resource)
        samples: VendorSample = VENDORS[provider]
        self.sample: ResourceSample = samples.resources[resource]
        settings = self.connector.settings.model_validate(samples.settings)
        self.first = Ask(self.resource, settings, parent=self.sample.parent)
        vendor.replies = [each.reply for each in self.sample.exchanges]

    async def pull(self, ask: Ask | None = None, *replies: Reply) -> Page:
        if replies:
            self.vendor.replies = list(replies)
        return await self.engine.pull(self.connector, ask or self.first, CREDENTIALS)

    def with_items(self, reply: Reply, items: list[JsonValue]) -> Reply:
        """The same answer with other rows."""
        return replace(reply, body=_put(reply.body, self.resource.items, items))

    def items(self, reply: Reply) -> list[JsonValue]:
        found = reply.body
        for name in self.resource.items.split(".") if self.resource.items else ():
            assert isinstance(found, dict)
            found = found[name]
        assert isinstance(found, list)
        return found


def _put(body: JsonValue, path: str, items: JsonValue) -> JsonValue:
    if not path:
        return items
    name, _, rest = path.partition(".")
    assert isinstance(body, dict)
    return {**body, name: _put(body[name], rest, items)}


@pytest.fixture
def stage(vendor: Vendor, engine: Engine, provider: str, resource: str) -> Stage:
    return Stage(vendor, engine, provider, resource)


@each_resource
async def test_all_pages_are_asked_for_and_all_rows_come_in_order(stage: Stage) -> None:
    ask, ids, deleted = stage.first, [], []
    for _ in stage.sample.exchanges:
        page = await stage.pull(ask)
        assert page.judgement.meaning is Meaning.OK, page
        assert page.malformed == ()
        assert page.dated == NOW
        ids += [row.row_id for row in page.rows]
        deleted += [row.row_id for row in page.rows if row.deleted]
        if page.cursor is None:
            break
        ask = replace(ask, cursor=page.cursor)
    assert page.cursor is None
    assert tuple(ids) == stage.sample.ids
    assert tuple(deleted) == stage.sample.deleted
    asked = [(each.method, each.path, each.query) for each in stage.vendor.asked]
    assert asked == [("GET", each.path, each.query) for each in stage.sample.exchanges]
    for request in stage.vendor.asked:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert not any(TOKEN in value for value in request.query.values())
    assert len(stage.sample.exchanges) > 1 or isinstance(stage.resource.paging, OnePage), "show a second page"


@each_resource
async def test_rows_are_kept_whole_but_for_what_is_left_out(stage: Stage) -> None:
    page = await stage.pull()
    given = [dict(each) for each in stage.items(stage.sample.exchanges[0].reply) if isinstance(each, dict)]
    kept = [{name: value for name, value in each.items() if name not in stage.resource.omit} for each in given]
    assert [dict(row.data) for row in page.rows] == [stage.vendor.at_home(each) for each in kept]
    parent = stage.sample.parent
    assert {row.parent_id for row in page.rows} == {parent.row_id if parent else None}
    if stage.resource.updated:
        assert all(row.vendor_updated_at for row in page.rows)


@each_resource
async def test_an_incremental_pass_asks_only_for_what_changed(stage: Stage) -> None:
    await stage.pull(replace(stage.first, since=SINCE))
    whole = stage.sample.exchanges[0].query
    assert stage.vendor.asked[0].query == {**whole, **stage.sample.since}
    assert (stage.resource.since is not None) == bool(stage.sample.since)


@each_resource
async def test_an_empty_page_ends_the_list_only_if_there_is_none_behind_it(stage: Stage) -> None:
    last = stage.sample.exchanges[-1].reply
    page = await stage.pull(stage.first, stage.with_items(last, []))
    assert (page.judgement.meaning, page.rows, page.cursor, page.received) == (Meaning.OK, (), None, 0)
    first = stage.sample.exchanges[0].reply
    whole = await stage.pull(stage.first, first)
    page = await stage.pull(stage.first, stage.with_items(first, []))
    assert (page.judgement.meaning, page.rows) == (Meaning.OK, ())
    assert page.cursor == (None if isinstance(stage.resource.paging, Offset) else whole.cursor)


@each_resource
async def test_a_malformed_row_is_left_out_and_told_without_its_contents(stage: Stage) -> None:
    reply = stage.sample.exchanges[0].reply
    good = stage.items(reply)
    page = await stage.pull(stage.first, stage.with_items(reply, [BROKEN, *good, PRIVATE]))
    assert page.judgement.meaning is Meaning.OK
    assert [row.row_id for row in page.rows] == list(stage.sample.ids[: len(good)])
    assert [each.partition(":")[0] for each in page.malformed] == ["row 0", f"row {len(good) + 1}"]
    assert page.received == len(good) + 2
    if isinstance(stage.resource.paging, Offset):
        assert page.cursor in {None, str(page.received)}, "what is left out counts as well"
    assert PRIVATE not in repr(page.malformed) + repr(page.judgement)


@each_resource
async def test_a_changed_schema_is_told_as_one(stage: Stage) -> None:
    reply = stage.sample.exchanges[0].reply
    renamed: JsonValue = {"ok": True, "renamed": stage.items(reply)}
    broken = _put(reply.body, stage.resource.items, [BROKEN] * ENOUGH_ROWS)
    bodies: list[JsonValue] = [renamed, broken, {"ok": True}, "null", '"text"']
    for body in bodies:
        page = await stage.pull(stage.first, Reply(body=body))
        assert page.judgement.code in {"schema", "no_json"}, page.judgement
        assert (page.rows, page.cursor) == ((), None)
        assert PRIVATE not in repr(page)
        if body != "null":
            assert (page.judgement.meaning, page.judgement.code) == (Meaning.PERMANENT, "schema")


@each_resource
async def test_one_odd_row_alone_under_its_parent_is_left_out(stage: Stage) -> None:
    reply = stage.sample.exchanges[-1].reply
    page = await stage.pull(stage.first, Reply(body=_put(reply.body, stage.resource.items, [BROKEN])))
    if stage.resource.parent:
        assert (page.judgement.meaning, page.rows, len(page.malformed)) == (Meaning.OK, (), 1)
    else:
        assert page.judgement.code == "schema"


@each_resource
async def test_what_is_no_json_is_an_outage(stage: Stage) -> None:
    for body in ("<html>back soon</html>", "", '{"cut off": [1, 2'):
        page = await stage.pull(stage.first, Reply(body=body))
        assert (page.judgement.meaning, page.judgement.code) == (Meaning.OVERLOADED, "no_json")


@pytest.mark.parametrize(("provider", "resource"), CURSORS_OF_THEIRS)
async def test_no_cursor_leads_to_another_host(stage: Stage) -> None:
    home = stage.vendor.host.removeprefix("http://")
    for cursor in (
        "https://elsewhere.example/next",
        f"http://{home}@elsewhere.example/next",
        f"http://elsewhere.example\\@{home}/next",
        f"http://somebody:secret@{home}/next",
        f"https://{home}/next",
        "//elsewhere.example/next",
        "http://[::1/next",
    ):
        asked = len(stage.vendor.asked)
        page = await stage.pull(replace(stage.first, cursor=cursor), *stage.vendor.replies)
        if len(stage.vendor.asked) == asked:
            assert (page.judgement.meaning, page.judgement.code) == (Meaning.PERMANENT, "request")
        else:  # it is a parameter and no URL
            assert stage.vendor.asked[-1].path == stage.sample.exchanges[0].path
            assert cursor in stage.vendor.asked[-1].query.values()


@pytest.mark.parametrize(("provider", "refusal"), REFUSALS)
async def test_a_refusal_is_understood(vendor: Vendor, engine: Engine, provider: str, refusal: str) -> None:
    connector = CONNECTORS[provider].at(vendor.host)
    expected = VENDORS[provider].refusals[refusal]
    stage = Stage(vendor, engine, provider, connector.resources[0].name)
    page = await stage.pull(stage.first, expected.reply)
    got = page.judgement
    wanted = (expected.meaning, expected.code, expected.wait, expected.budget)
    assert (got.meaning, got.code, got.wait, got.budget) == wanted, got
    assert (page.rows, page.cursor, page.received) == ((), None, 0)
    names = {each.name for resource in connector.resources for each in connector.budgets_of(resource)}
    assert not got.budget or got.budget in names


@each_connector
async def test_the_samples_are_complete(provider: str) -> None:
    samples: VendorSample = VENDORS[provider]
    assert set(samples.resources) == {each.name for each in CONNECTORS[provider].resources}
    shown = {each.meaning for each in samples.refusals.values()}
    assert {Meaning.THROTTLED, Meaning.UNAUTHORIZED, Meaning.OVERLOADED} <= shown


@each_connector
async def test_what_headers_say_of_budgets(vendor: Vendor, engine: Engine, provider: str) -> None:
    samples: VendorSample = VENDORS[provider]
    stage = Stage(vendor, engine, provider, CONNECTORS[provider].resources[0].name)
    good = stage.sample.exchanges[0].reply
    page = await stage.pull(stage.first, replace(good, headers={**good.headers, **samples.headers}))
    assert page.observed == samples.observed
    page = await stage.pull(stage.first, replace(good, headers=dict.fromkeys(samples.headers, "nonsense")))
    assert page.observed == ()


@each_connector
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
async def test_no_text_repeats_a_secret(vendor: Vendor, engine: Engine, provider: str, status: int) -> None:
    stage = Stage(vendor, engine, provider, CONNECTORS[provider].resources[0].name)
    leak = f"no {TOKEN} and no refresh-{TOKEN}"
    bodies: list[JsonValue] = [
        leak,
        {"message": leak},
        {"err": leak},
        {"errorMessages": [leak]},
        {"ok": False, "error": leak},
    ]
    for body in bodies:
        page = await stage.pull(stage.first, Reply(status, body))
        assert page.judgement.meaning is not Meaning.OK
        assert TOKEN not in repr(page)
        assert len(page.judgement.detail) < 500
    assert TOKEN not in repr(CREDENTIALS)


@each_connector
def test_its_description_is_sound(provider: str) -> None:
    connector = CONNECTORS[provider]
    assert connector.name == provider
    assert connector.docs.startswith("https://")
    assert connector.host.startswith("https://") and connector.auth.host.startswith("https://")
    assert connector.queue == f"integrations-{provider}"
    settings = set(connector.settings.model_fields)
    assert _names(connector.base) <= settings
    before: dict[str, Resource] = {}
    for resource in connector.resources:
        assert not resource.parent or resource.parent in before, f"{resource.name} comes before its parent"
        wanted = _names(resource.path).union(*map(_names, resource.params.values()))
        assert wanted <= settings | set(resource.of_parent)
        assert PARENT not in resource.of_parent.values() or before[resource.parent].parent
        assert (resource.row.__doc__ or "").strip()
        before[resource.name] = resource
    budgets = [*connector.budgets, *(each for resource in connector.resources for each in resource.budgets)]
    assert budgets, "a vendor without a limit is one whose limit was not looked up"
    assert all(each.source.startswith("https://") and each.limit > 0 for each in budgets)
    assert len({each.name for each in budgets}) == len({*budgets}), "one name, one budget"
    for holder in Holder:
        assert sum(each.kept_by is KeptBy.QUEUE and each.holder is holder for each in budgets) <= 1


def _names(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}
