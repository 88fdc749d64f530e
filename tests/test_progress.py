"""What long work logs of itself."""

import re

import pytest

from t2aux.progress import Progress, duration


@pytest.mark.parametrize(
    ("total", "of"),
    [(None, ""), (1000, r" of 1,000"), (lambda done: 100 * done, r" of about 1,000")],
)
def test_a_line_has_the_count_the_rate_and_the_time_left(total, of, caplog):
    caplog.set_level("INFO", "absl")
    Progress("Rows", total, every_seconds=0).add(10)
    left = r", \d+:\d\d:\d\d left" if total else ""
    assert re.fullmatch(rf"Rows: 10{of}, [\d.e+,]+ a second{left}", caplog.messages[0])


def test_short_work_says_nothing(caplog):
    caplog.set_level("INFO", "absl")
    Progress("Rows", 3).update(3)
    assert not caplog.messages


def test_durations():
    assert [duration(s) for s in (0, 59.6, 3723)] == ["0:00:00", "0:01:00", "1:02:03"]
