"""What is printed for people and for programs."""

import io
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from catalog.causes import Cause
from catalog.counts import count_of
from catalog.states import JobState
from cli.output import Size, cell, plain, print_json, print_table, show_causes, size, stream_json
from cli.progress import Bar


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2_345_678, "2.3 MB"),
        (4 * 10**18, "4000.0 PB"),
    ],
)
def test_sizes_have_units(count: int, text: str) -> None:
    assert str(Size(count)) == text


def test_a_size_that_is_not_known_is_none() -> None:
    assert size(None) is None
    assert size(5) == 5


def test_times_are_shown_in_utc() -> None:
    at = datetime(2031, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=3)))
    assert cell(at) == "2031-03-04 02:06:07Z"
    assert plain(at.astimezone(UTC)) == "2031-03-04T02:06:07+00:00"


def test_nothing_looks_like_nothing() -> None:
    nothing: tuple[object, ...] = (None, "", [], {})
    assert [cell(value) for value in nothing] == ["–"] * 4
    assert cell(0) == "0" and cell(False) == "no"


def test_states_are_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({JobState.READY: JobState.HELD, "set": {2, 1}})
    assert json.loads(capsys.readouterr().out) == {"READY": "HELD", "set": [1, 2]}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_streamed_list_is_json(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    stream_json({"n": n} for n in range(count))
    assert json.loads(capsys.readouterr().out) == [{"n": n} for n in range(count)]


def test_a_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"mask": "run-[0-9][red]", "n": 1}])
    assert "run-[0-9][red]  1" in capsys.readouterr().out


def test_a_bar_writes_nothing_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("cli.progress.SHOW_AFTER_S", 0.0)
    with Bar("reading", 2) as bar:
        bar.advance(2)
    assert stream.getvalue() == ""


def test_a_reason_that_is_a_sentence_ends_where_the_whole_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_causes([Cause("a: no name; give one.", "mend it"), Cause("b is gone.")], as_json=False)
    assert capsys.readouterr().out == "- a: no name; give one; mend it\n- b is gone.\n"


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (2, ("copy", "copies"), "2 copies"),
        (1, ("copy", "copies"), "1 copy"),
    ],
)
def test_one_is_no_plural(number: int, words: tuple[str, ...], text: str) -> None:
    assert count_of(number, *words) == text
