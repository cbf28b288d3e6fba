"""Traffic is counted per version and time, and asked for over stretches of time."""

import pytest
from aigw.domain.traffic import BUCKETS, Counts, TrafficLog, bucket_of, upper_bound
from chassis.errors import Code
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_700_000_000.0


@given(st.floats(0, 90))
def test_a_latency_falls_into_a_bucket_that_holds_it(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert seconds <= upper_bound(bucket) * 1.0000001
    assert bucket == 0 or seconds >= upper_bound(bucket - 1) * 0.9999999


def test_the_last_bucket_has_no_end() -> None:
    assert bucket_of(1e9) == BUCKETS - 1


@given(st.lists(st.floats(0.0002, 50), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_right_to_the_width_of_a_bucket(latencies: list[float], q: float) -> None:
    counts = Counts()
    for latency in latencies:
        counts.record(Code.OK, latency, 1, 0, 0)
    exact = sorted(latencies)[max(0, -int(-q * len(latencies) // 1) - 1)]
    assert exact / 1.0001 <= counts.quantile(q) <= max(exact * 1.1501, exact)


def test_failed_calls_are_no_latency_and_only_some_codes_are_errors() -> None:
    counts = Counts()
    counts.record(Code.OK, 0.1, 2, 10, 20)
    counts.record(Code.INVALID_ARGUMENT, 9.0, 1, 10, 0)
    counts.record(Code.UNAVAILABLE, 9.0, 3, 10, 0)
    assert (counts.requests, counts.errors, counts.successes, counts.retries) == (3, 1, 1, 3)
    assert (counts.mean, counts.latency_max, counts.request_bytes, counts.response_bytes) == (
        0.1,
        0.1,
        30,
        20,
    )


@pytest.fixture
def log() -> TrafficLog:
    log = TrafficLog(resolution=1.0, window=60.0, started=NOW - 30)
    for second in range(20):
        for _ in range(second):
            log.series("p/m", "1").record(NOW + second, Code.OK, 0.01, 1, 1, 1)
        log.series("p/m", "2").record(NOW + second, Code.INTERNAL, 0.01, 1, 1, 0)
        log.series("p/other", "1").record(NOW + second, Code.OK, 0.01, 1, 1, 1)
    return log


def test_a_query_answers_each_version_of_one_model(log: TrafficLog) -> None:
    traffic = log.query("p/m", NOW + 20, start=None, end=None, step=None)
    assert [(a.version, a.total.requests, a.total.errors) for a in traffic.series] == [
        ("1", 190, 0),
        ("2", 20, 20),
    ]
    assert traffic.start == NOW - 30


def test_a_query_is_limited_to_its_time_and_version(log: TrafficLog) -> None:
    traffic = log.query("p/m", NOW + 20, start=NOW + 5, end=NOW + 10, step=None, version="1")
    assert [(a.version, a.total.requests) for a in traffic.series] == [("1", 5 + 6 + 7 + 8 + 9)]
    assert (traffic.start, traffic.end) == (NOW + 5, NOW + 10)


def test_steps_are_as_long_as_asked_and_leave_the_empty_ones_out(log: TrafficLog) -> None:
    traffic = log.query("p/m", NOW + 40, start=NOW, end=NOW + 40, step=9.5, version="1")
    assert [(p.start - NOW, p.counts.requests) for p in traffic.series[0].points] == [(0, 45), (10, 145)]


def test_what_is_older_than_the_window_is_forgotten_but_stays_in_the_total(log: TrafficLog) -> None:
    log.series("p/m", "2").record(NOW + 70, Code.OK, 0.01, 1, 1, 1)
    traffic = log.query("p/m", NOW + 70, start=NOW, end=None, step=None, version="2")
    assert traffic.series[0].total.requests == 10
    assert traffic.start > NOW + 10
    assert log.series("p/m", "2").total.requests == 21


def test_a_wall_clock_that_was_ahead_for_a_while_hides_no_call() -> None:
    log = TrafficLog(resolution=1.0, window=60.0, started=NOW)
    for jump in (0, 1, 86_400, 86_401, 2, 3, -7_200, -7_199):
        log.series("p/m", "1").record(NOW + jump, Code.OK, 0.01, 1, 1, 1)
    traffic = log.query("p/m", NOW - 7_198, start=None, end=None, step=1.0, version="1")
    # The two before the clock ran ahead had left the window by its time.
    assert traffic.series[0].total.requests == 6
    assert [point.start - NOW for point in traffic.series[0].points] == [-7_200, -7_199]


def test_a_wall_clock_that_is_set_back_loses_no_call(log: TrafficLog) -> None:
    log.series("p/m", "2").record(NOW - 100, Code.OK, 0.01, 1, 1, 1)
    traffic = log.query("p/m", NOW - 100, start=None, end=None, step=None, version="2")
    assert traffic.series[0].total.requests == 21
