"""Loops of the intake take turns at a pace of their own."""

from types import SimpleNamespace

import pytest

from flows.intake import loops


def test_turns_begin_at_a_pace_or_at_once_where_one_took_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = 0.0
    took_s = iter([0.0, 0.5, 3.0])

    def turn() -> int:
        nonlocal moment
        moment += next(took_s)
        return 1

    monkeypatch.setattr(loops, "time", SimpleNamespace(monotonic=lambda: moment))
    take = loops.paced(turn, 2.0)
    assert [take() for _ in range(3)] == [2.0, 1.5, 0.0]
