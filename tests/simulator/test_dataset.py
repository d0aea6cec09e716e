import itertools
import random
import time

import pytest

from simulator.vendors.dataset import DAY, Collection, Dataset, Order
from simulator.vendors.ids import read, shuffled, sorted_out, uuid, written

END = 90 * DAY


def test_items_are_in_order_and_in_the_past() -> None:
    items = list(Collection(500, 0, END, seed=1).between("updated"))
    assert [item.number for item in items] == list(range(500))
    assert all(before.updated < after.created for before, after in itertools.pairwise(items))
    assert all(0 <= item.created <= item.updated <= END for item in items)


def test_the_same_seed_has_the_same_data_and_another_has_not() -> None:
    one, same, other = (list(Collection(20, 0, END, seed).between()) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("seed", range(3))
def test_changes_as_a_plain_list_would_have_them(seed: int) -> None:
    dice = random.Random(seed)
    collection = Collection(40, 0, END, seed)
    plain = {item.number: (item.created, item.updated, 0) for item in collection.between()}
    now = END
    for _ in range(400):
        now += dice.randrange(3) * 1000
        what = dice.choice(("add", "change", "delete"))
        if what == "add" or not plain:
            item = collection.add(now)
            plain[item.number] = (item.created, item.updated, 0)
        elif what == "change":
            number = dice.choice(list(plain))
            item = collection.change(number, now)
            plain[number] = (plain[number][0], item.updated, plain[number][2] + 1)
            assert item.revision == plain[number][2]
        else:
            number = dice.choice(list(plain))
            collection.delete(number)
            del plain[number]
            assert number not in collection
    assert len(collection) == len(plain)
    places: dict[Order, int] = {"created": 0, "updated": 1}
    for order, place in places.items():
        expected = sorted(plain, key=lambda number: (plain[number][place], number))
        assert [item.number for item in collection.between(order)] == expected
        assert list(collection.numbers(order)) == expected
        assert [item.number for item in collection.between(order, descending=True)] == expected[::-1]
        assert [item.number for item in collection.slice(3, 9, order)] == expected[3:9]
        middle = expected[len(expected) // 2]
        bound = (plain[middle][place], middle)
        assert [item.number for item in collection.between(order, least=bound)] == expected[len(expected) // 2 :]
        assert [item.number for item in collection.between(order, most=bound)] == expected[: len(expected) // 2 + 1]
    times = [item.updated for item in collection.between("updated")]
    assert len(set(times)) == len(times), "no two changes are at the same time"


def test_what_is_not_there_cannot_be_changed() -> None:
    collection = Collection(3, 0, END, seed=1)
    collection.delete(1)
    with pytest.raises(KeyError):
        collection.change(1, END)
    with pytest.raises(KeyError):
        collection.delete(3)


def test_large_collections_cost_nothing_until_they_are_read() -> None:
    began = time.perf_counter()
    collection = Collection(2_000_000, 0, END, seed=1)
    assert len(collection) == 2_000_000
    assert [item.number for item in collection.slice(1_000_000, 1_000_003)] == [1_000_000, 1_000_001, 1_000_002]
    assert time.perf_counter() - began < 0.1


def test_children_are_younger_than_their_parent_and_new_parents_are_empty() -> None:
    data = Dataset({"a": 3, "b": 5}, {"a": None, "b": "a"}, lambda sizes, kind, _: sizes[kind], seed=1, now=END)
    parent = data.of("a")[2]
    assert all(parent.created <= item.created <= END for item in data.of("b", (2,)).between())
    added = data.of("a").add(END + 1)
    assert len(data.of("b", (added.number,))) == 0
    with pytest.raises(KeyError):
        data.of("b", (99,))


def test_identifiers_can_be_read_back() -> None:
    for number in (0, 1, 2, 77, 1 << 40):
        assert sorted_out(shuffled(number, 46 if number < 1 << 46 else 128), 46) == number
        assert read(written(shuffled(number, 128), 22)) == shuffled(number, 128)
    assert read("a-b") is None
    assert len({uuid(1, number) for number in range(1000)}) == 1000
