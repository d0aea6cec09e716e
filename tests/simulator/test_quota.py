import ast
import random
import sys
from pathlib import Path

import pytest

import simulator.quota
from simulator.quota import Concurrency, FixedWindow, Points, Quota, Scopes, SlidingWindow, TokenBucket, take_all

NOW = 1_790_000_000.0
HOUR = 3600.0


def test_a_fixed_window_begins_with_the_first_request() -> None:
    quota = FixedWindow(3, 60)
    assert quota.ask(NOW).remaining == 3
    first = quota.take(NOW + 7)
    assert (first.allowed, first.remaining, first.reset_at, first.retry_after) == (True, 2, NOW + 67, 0)
    assert [quota.take(NOW + 8 + n).remaining for n in range(2)] == [1, 0]
    refused = quota.take(NOW + 20)
    assert (refused.allowed, refused.remaining, refused.reset_at, refused.retry_after) == (False, 0, NOW + 67, 47)
    assert not quota.take(NOW + 66.9).allowed
    again = quota.take(NOW + 67)
    assert (again.allowed, again.remaining, again.reset_at) == (True, 2, NOW + 127)


def test_an_aligned_window_ends_with_the_hour_of_utc() -> None:
    quota = FixedWindow(2, HOUR, aligned=True)
    hour = NOW - NOW % HOUR
    assert quota.take(hour + 3599).reset_at == hour + HOUR
    assert quota.take(hour + 3599).remaining == 0
    assert quota.take(hour + 3599).retry_after == 1
    assert quota.take(hour + 3600).remaining == 1


def test_speed_divides_the_window() -> None:
    for quota in (FixedWindow(1, HOUR, speed=60), SlidingWindow(1, HOUR, speed=60)):
        assert quota.take(NOW).allowed
        assert quota.take(NOW + 30).retry_after == 30
        assert quota.take(NOW + 60).allowed
    assert FixedWindow(1, HOUR, aligned=True, speed=60).take(NOW).reset_at == NOW - NOW % 60 + 60
    bucket = TokenBucket(rate=1, burst=1, speed=10)
    assert bucket.take(NOW).allowed
    assert bucket.take(NOW).retry_after == pytest.approx(0.1)


def test_a_sliding_window_lets_no_stretch_have_more() -> None:
    quota = SlidingWindow(3, 60)
    for at in (0, 10, 50):
        assert quota.take(NOW + at).allowed
    refused = quota.take(NOW + 55)
    assert (refused.retry_after, refused.reset_at) == (5, NOW + 110)
    assert quota.take(NOW + 60).allowed
    assert quota.take(NOW + 60).retry_after == 10
    assert quota.take(NOW + 61, cost=2).retry_after == 49, "two have to leave"


@pytest.mark.parametrize("seed", range(5))
def test_a_random_client_never_gets_more_than_the_model_says(seed: int) -> None:
    dice = random.Random(seed)
    limit, window = dice.randint(1, 20), 60.0
    sliding, fixed, bucket = (
        SlidingWindow(limit, window),
        FixedWindow(limit, window),
        TokenBucket(limit / window, limit),
    )
    quotas: list[Quota] = [sliding, fixed, bucket]
    taken: dict[Quota, list[float]] = {quota: [] for quota in quotas}
    now = NOW
    for _ in range(3000):
        now += dice.expovariate(limit / window * 1.5)
        for quota in quotas:
            if quota.take(now).allowed:
                taken[quota].append(now)
    times = taken[sliding]
    for at, later in zip(times, times[limit:], strict=False):
        assert later - at >= window - 1e-3
    starts = [NOW]
    for at in taken[fixed]:
        if at >= starts[-1] + window:
            starts.append(at)
    assert max(sum(start <= at < start + window for at in taken[fixed]) for start in starts) <= limit
    times = taken[bucket]
    for first in range(0, len(times), 17):
        for last in range(first, len(times), 13):
            assert last - first + 1 <= limit + (times[last] - times[first]) * limit / window + 1e-3
    for quota in quotas:
        counts = quota.counts(now)
        assert counts.taken + counts.refused == 3000
        assert counts.refused == counts.refused_own + counts.refused_again
        assert 0.5 < counts.used <= 1.2
        assert counts.used_at_most <= 1


@pytest.mark.parametrize(
    "quota", [FixedWindow(7, 60), FixedWindow(7, 60, aligned=True), SlidingWindow(7, 60), TokenBucket(7 / 60, 7)]
)
def test_waiting_as_long_as_was_said_is_enough_and_less_is_not(quota: Quota) -> None:
    dice, now = random.Random(1), NOW
    for _ in range(500):
        now += dice.random() * 3
        verdict = quota.ask(now)
        if verdict.allowed:
            assert quota.take(now).allowed
            continue
        assert verdict.retry_after > 0
        assert not quota.ask(now + verdict.retry_after * 0.99).allowed
        now += verdict.retry_after
        assert quota.take(now).allowed
    assert quota.counts(now).refused == 0


def test_a_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    quota = TokenBucket(rate=2, burst=10)
    assert all(quota.take(NOW).allowed for _ in range(10))
    refused = quota.take(NOW)
    assert (refused.allowed, refused.retry_after, refused.reset_at) == (False, 0.5, NOW + 5)
    assert quota.take(NOW + 0.5).allowed
    assert quota.take(NOW + 100).remaining == 9, "it holds no more than the burst"


def test_points_are_charged_after_the_answer_and_may_overshoot() -> None:
    quota = Points(100, HOUR, aligned=True)
    assert quota.take(NOW, 60).remaining == 40
    over = quota.take(NOW, 60)
    assert (over.allowed, over.remaining) == (True, 0)
    assert not quota.take(NOW, 1).allowed
    assert quota.counts(NOW).spent == 120
    assert quota.counts(NOW).used_at_most == 1
    assert quota.take(NOW + HOUR, 1).remaining == 99


def test_concurrency() -> None:
    quota = Concurrency(2)
    assert quota.take(NOW).remaining == 1
    assert quota.take(NOW).remaining == 0
    assert quota.take(NOW).retry_after == 1
    quota.release(NOW + 3)
    assert quota.take(NOW + 3).allowed
    assert quota.busy(NOW + 4) == 3 + 4 + 1


def test_several_quotas_are_taken_all_or_none() -> None:
    hourly, minutely = FixedWindow(10, HOUR), SlidingWindow(1, 60)
    assert take_all(NOW, [(hourly, 1), (minutely, 1)])[0] is None
    refusing, verdicts = take_all(NOW + 1, [(hourly, 1), (minutely, 1)])
    assert refusing is minutely
    assert [(each.allowed, each.remaining) for each in verdicts] == [(True, 9), (False, 0)]
    assert hourly.ask(NOW + 1).remaining == 9
    assert (hourly.counts(NOW).refused, minutely.counts(NOW).refused) == (0, 1)


def test_what_was_used_of_the_time_that_passed() -> None:
    quota = FixedWindow(60, 60)
    for n in range(57 * 5):
        assert quota.take(NOW + n * 60 / 57).allowed
    counts = quota.counts(NOW + 300)
    assert counts.used == pytest.approx(0.95)
    assert counts.used_at_most == pytest.approx(57 * 5 / 360), "a sixth window has begun"


def test_a_refusal_without_other_clients_is_the_clients_own() -> None:
    quota = SlidingWindow(1, 60)
    quota.take(NOW)
    quota.take(NOW + 1)
    counts = quota.counts(NOW + 1)
    assert (counts.refused, counts.refused_own, counts.refused_surprise) == (1, 1, 0)


@pytest.mark.parametrize(
    "quota", [FixedWindow(10, 60), SlidingWindow(10, 60), TokenBucket(10 / 60, 10), Points(10, 60)]
)
def test_a_refusal_that_another_client_caused_is_a_surprise_and_coming_too_early_is_not(quota: Quota) -> None:
    for _ in range(5):
        assert quota.take(NOW).allowed
    quota.eat(NOW + 0.1, 100)
    assert quota.ask(NOW + 0.1).remaining == 0
    refused = quota.take(NOW + 0.2)
    assert not refused.allowed
    assert not quota.take(NOW + 0.5).allowed, "it may have been in flight"
    assert not quota.take(NOW + 2).allowed
    counts = quota.counts(NOW + 2)
    assert (counts.surprises, counts.refused) == (1, 3)
    assert counts.eaten == pytest.approx(5, abs=0.1)
    assert (counts.refused_surprise, counts.refused_again, counts.refused_own) == (2, 1, 0)
    assert quota.take(NOW + 0.2 + refused.retry_after).allowed


def test_after_a_surprise_a_client_that_overdraws_on_its_own_is_told_apart() -> None:
    quota = FixedWindow(10, 60)
    quota.eat(NOW, 2)
    assert [quota.take(NOW + 1).allowed for _ in range(9)] == [True] * 8 + [False]
    assert quota.counts(NOW).refused_surprise == 1
    later = NOW + 61
    assert [quota.take(later).allowed for _ in range(11)] == [True] * 10 + [False]
    assert quota.counts(later).refused_own == 1


def test_what_others_used_is_not_asked_of_the_client() -> None:
    quota = FixedWindow(100, 60)
    quota.eat(NOW, 50)
    for _ in range(45):
        quota.take(NOW)
    assert quota.counts(NOW + 60).used == pytest.approx(0.9)


def test_each_scope_has_its_own() -> None:
    scopes = Scopes[tuple[str, str]](lambda key: FixedWindow(1 if key[1] == "history" else 2, 60))
    assert scopes["acme", "history"].take(NOW).allowed
    assert not scopes["acme", "history"].take(NOW).allowed
    assert scopes["other", "history"].take(NOW).allowed
    assert scopes["acme", "list"].take(NOW).remaining == 1
    assert len(scopes) == 3
    assert ("acme", "list") in scopes
    scopes.clear()
    assert scopes["acme", "history"].take(NOW).allowed


@pytest.mark.parametrize(("limit", "speed"), [(0, 1), (1, 0)])
def test_nonsense_is_refused(limit: float, speed: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        FixedWindow(limit, 60, speed=speed)


def test_the_quotas_import_nothing_but_each_other() -> None:
    for module in Path(simulator.quota.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.ImportFrom):
                name = str(node.module)
                assert name.startswith("simulator.quota") or name.split(".", maxsplit=1)[0] in sys.stdlib_module_names
            elif isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= sys.stdlib_module_names - {"time"}


def test_headers_of_one_window_as_github_sends_them() -> None:
    """Three answers of one client in one hour: remaining falls, used rises, reset stays."""
    sent = [
        {"limit": 5000, "remaining": 4970, "used": 30, "reset": 1_790_003_600},
        {"limit": 5000, "remaining": 4969, "used": 31, "reset": 1_790_003_600},
        {"limit": 5000, "remaining": 4958, "used": 42, "reset": 1_790_003_600},
    ]
    quota = FixedWindow(5000, HOUR)
    for _ in range(29):
        quota.take(NOW)
    for headers, more in zip(sent, (1, 1, 11), strict=True):
        for _ in range(more):
            verdict = quota.take(NOW + 600)
        assert verdict.remaining == headers["remaining"] == headers["limit"] - headers["used"]
        assert verdict.reset_at == headers["reset"]


def test_headers_of_a_burst_and_of_an_hour_as_jira_sends_them() -> None:
    """Limit 350 with 349 left after one; refused at the hour's quota with Retry-After up to the full hour."""
    bucket = TokenBucket(rate=350, burst=350)
    assert bucket.take(NOW).remaining == 349
    hour = NOW - NOW % HOUR
    quota = Points(100, HOUR, aligned=True)
    quota.take(hour + 1000, 100)
    refused = quota.take(hour + 1753, 1)
    assert refused.retry_after == 1847
    assert refused.reset_at == hour + HOUR
