"""Which lost requests the end-to-end tests put down to the machine."""

from __future__ import annotations

import pytest

from tests.e2e.asked import MOVED, Disturbance, Lost, moves, unexplained


@pytest.mark.parametrize(
    ("begin", "end", "excused"),
    [(90, 99, False), (90, 100, True), (101, 102, True), (104, 170, True), (105.5, 106, False)],
)
def test_a_request_is_excused_that_was_under_way_in_a_disturbance(begin: float, end: float, excused: bool) -> None:
    lost = Lost(1, begin, end, "reset")
    assert unexplained([lost], [Disturbance("moved", 100, 105)]) == ([] if excused else [lost])
    assert unexplained([lost], []) == [lost]


def test_the_vip_has_moved_only_to_another_load_balancer() -> None:
    notes = [(30.0, "lb2"), (10.0, "lb1"), (20.0, "lb2"), (40.0, "lb1")]
    assert [(one.what, one.begin + MOVED) for one in moves("lb1", notes)] == [
        ("the VIP went from lb1 to lb2", 20.0),
        ("the VIP went from lb2 to lb1", 40.0),
    ]
    assert moves("lb1", [(10.0, "lb1")]) == []


def test_the_vip_is_back_where_it_never_left() -> None:
    """Both had it for a moment: only the other one says so."""
    found = moves("lb1", [(20.0, "lb2")], [(5.0, "lb2"), (26.0, "lb2")])
    assert [one.begin + MOVED for one in found] == [20.0, 26.0]
    assert moves("lb1", [], [(5.0, "lb2")]) == []
