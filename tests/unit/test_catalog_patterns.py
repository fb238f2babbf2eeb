"""Patterns of users: what they mean in Python, in time that grows with the text only."""

import fnmatch
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from catalog.errors import BadInput
from catalog.patterns import MOST, Pattern, named
from flows.compile.mask import check_syntax, fits_outputs, output_tail

TEXTS = (
    "", "a", "aa", "aaa", "aaaa", "A", "ab", "b", "1", "٣", "é", "É", " ", "\v", "\x1c", "\xa0",
    "_", "-", "a{,3}", "a\n", "ß", "run-17/f.raw", "run-17/f.raw\n", "中", "²", "x1", "K", "\u212a",
)  # fmt: skip


@pytest.mark.parametrize(
    "pattern",
    [
        "a{,3}",
        r"a{\,3}",
        r"\d",
        r"\D",
        r"\s",
        r"\S",
        r"\w+",
        r"\W",
        r"[\d_]",
        r"[^\w-]",
        r"[\D]",
        r"[^\S]",
        r"[a\W]",
        r"(?a)\w",
        r"(?a:\d)",
        r"(?a)\bx1\b",
        "(?i)k",
        "(?i)É",
        "(?i:a)B",
        r"(?s).*",
        r".*",
        r"run-\d+/.*\.raw$",
        r"^a*?$",
        r"\Aa\Z",
        "a|b|",
        "(?x) a  # the first\n b",
        "[é-中]",
        r"\x61",
        r"\N{DIGIT ONE}",
        "(a|(b))*",
    ],
)
def test_a_pattern_means_what_it_means_in_python(pattern: str) -> None:
    ours = Pattern(pattern)
    for text in TEXTS:
        found = re.fullmatch(pattern, text)
        assert (ours.fullmatch(text) is None) == (found is None), text


def test_each_character_is_of_the_class_that_python_says() -> None:
    """But for those that a later Unicode added: these are of the planes beyond the first."""
    for pattern in (r"\d", r"\s", r"\w", r"[^\n]"):
        ours, theirs = Pattern(pattern), re.compile(pattern)
        for code in [*range(0xD800), *range(0xE000, 0xFFFF)]:
            if (ours.fullmatch(chr(code)) is None) != (theirs.fullmatch(chr(code)) is None):
                raise AssertionError(f"{pattern} of {code:x}")


_PIECES = st.recursive(
    st.sampled_from(["a", "b", ".", r"\d", r"\w", "[ab]", "[^a]", r"\.", "", "^", "$"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{1,2}", "{,2}", "{2}"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(_PIECES, st.text("ab.1é/", max_size=6))
def test_any_pattern_fits_the_texts_that_it_fits_in_python(pattern: str, text: str) -> None:
    try:
        found = Pattern(pattern).fullmatch(text)
    except BadInput as error:
        assume("is too large" not in str(error))
        raise
    assert (found is None) == (re.fullmatch(pattern, text) is None)


def test_letters_may_be_as_many_as_names_have() -> None:
    """Each is many steps, since Unicode has many letters."""
    text = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
    assert Pattern(r"\w{8}-\w{4}-\w{4}-\w{4}-\w{12}").fullmatch(text) == {}


def test_groups_make_the_names_of_datasets() -> None:
    assert named(r"(?P<run>run-\d+)(?P<kind>\.cal)?/.*", "{run}{kind}", "run-7/a") == "run-7"
    assert (
        named(r"(?P<run>run-\d+)(?P<kind>\.cal)?/.*", "{run}{kind}", "run-7.cal/a") == "run-7.cal"
    )
    assert named(r"(?P<run>run-\d+)/.*", "{run}", "other/a") is None


def test_bytes_that_are_no_text_are_characters_like_others() -> None:
    name = b"r1/lat\xe4.raw".decode("utf-8", "surrogateescape")
    assert Pattern(r"(?P<run>r\d)/.*\.raw").fullmatch(name) == {"run": "r1"}
    assert Pattern(r"r1/lat...raw").fullmatch(name) is None, "one byte, one character"
    assert Pattern(r"r1/lat.\.raw").fullmatch(name) == {}
    assert Pattern(r"r1/\w+\.raw").fullmatch(name) is None


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(", "is no regular expression"),
        ("(?P<a>x)(?P<a>y)", "redefinition of group name 'a'"),
        (r"\p{L}", r"bad escape \p"),
        ("(?=a)a", "`(?=…)`"),
        ("(?<!a)b", "`(?!…)` and `(?<!…)`"),
        (r"(a)\1", "refers back to what a group took"),
        ("(a)?(?(1)b|c)", "whether a group took anything"),
        ("(?>a*)b", "`(?>…)`"),
        ("a*+b", "never give back"),
        (r"\ba", r"`\b` and `\B` are known for ASCII only"),
        (r"[^\W_]", r"excludes `\D`, `\S` or `\W`"),
        ("a{1001}", "repeats more than 1000 times"),
        (
            "(a{500}){3}",
            "(a{500}){3}' can't be used: repeats in repeats come to more than 1000 times",
        ),
        (r"\p{L}+", r"--pattern '\p{L}+' is no"),
        (r"\d(?=a)", r"--pattern '\d(?=a)' can't"),
        (r"(\w{0,9}){0,9}", "is too large"),
        ("a" * (MOST + 1), f"longer than {MOST} characters"),
        ("\udce4", "a byte that is no UTF-8"),
    ],
)
def test_what_can_not_be_matched_alike_in_linear_time_is_refused(pattern: str, told: str) -> None:
    with pytest.raises(BadInput) as error:
        Pattern(pattern, "--pattern")
    assert told in str(error.value) and "--pattern" in str(error.value)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a|aa)+b", r"(.*a){20}b"])
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    """Python's own engine would not come to an end with these."""
    assert Pattern(pattern).fullmatch("a" * 800) is None
    assert Pattern(pattern).fullmatch("a" * 800 + "b") == {}


def test_no_mask_takes_exponential_time() -> None:
    """Python's `fnmatch` gives back nothing between two stars."""
    mask = "*a" * 90 + "*b"
    assert not fnmatch.fnmatchcase("a" * 199, mask)
    glob = check_syntax(mask)
    assert fits_outputs(glob, output_tail("t", 1, ["step.port"])) is None


@pytest.mark.parametrize(
    ("pattern", "begins", "not_so"),
    [
        (
            r"(?:\w+/)?run-\d+_\d+\.raw",
            ["", "n2/", "run-1", "run-1_2.raw"],
            ["n2/a/", ".x/", "n 2/"],
        ),
        (r"run-\d+/.*\.raw", ["run-2/", "run-2/inner/", "ru"], ["other/", "run-/", "run"[::-1]]),
        (
            r"(?:data|sim)/(?:a|b){2}/x",
            ["data/", "sim/ab/", "sim/b"],
            ["data/c", "date/", "sim/aab/"],
        ),
        (r"(?i)A(?-i:b)c", ["a", "ab", "ABc"[:1] + "bC"], ["aB"]),
        (r"\Aa/b\Z", ["a/", "a/b"], ["b/", "a/b/"]),
        ("x" * 1999, ["x", "x" * 1999], []),
    ],
)
def test_what_a_text_that_fits_may_begin_with(
    pattern: str, begins: list[str], not_so: list[str]
) -> None:
    known = Pattern(pattern)
    assert [text for text in begins if not known.may_begin(text)] == []
    assert [text for text in not_so if known.may_begin(text)] == []


@given(st.from_regex(r"(?:[ab][12]?|c+|(?:d|e/)*){1,4}", fullmatch=True), st.integers(0, 20))
def test_each_beginning_of_a_text_that_fits_is_one(text: str, length: int) -> None:
    assert Pattern(r"(?:[ab][12]?|c+|(?:d|e/)*){1,4}").may_begin(text[:length])
