"""Expressions: references, JavaScript, interpolation, and their limits."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from catalog.errors import BadTemplate, ErrorCode
from catalog.settings import get_settings
from workers.cwl import ToolFailure, compile_expression

INPUTS = {"list": [10, 20], "file": {"class": "File", "basename": "a.txt"}, "a b": {"c'd": 7}}


def value(text: str, *, js: bool = False, lib: tuple[str, ...] = (), self_: Any = None) -> Any:
    return compile_expression(text, js, list(lib)).evaluate(INPUTS, self_, {"cores": 2})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(inputs.list[1])", 20),
        ("$(inputs.list.length)", 2),
        ("$(inputs['a b']['c\\'d'])", 7),
        ('$(inputs["file"].basename)', "a.txt"),
        ("$(runtime.cores)", 2),
        ("$(self)", "me"),
        ("$(null)", None),
        ("x-$(inputs.list)-$(null)", "x-[10, 20]-null"),
        ("\\$(inputs.list) $(self)", "$(inputs.list) me"),
        ("\\\\$(self) \\n", "\\me \\n"),
        ("no \\$ expression", "no \\$ expression"),
        ("  $(self)\n", "me"),
    ],
)
def test_references_and_interpolation(text: str, expected: Any) -> None:
    assert value(text, self_="me") == expected


def test_blanks_stay_where_the_caller_wants_them() -> None:
    assert compile_expression("$(self)\n", strip=False).evaluate({}, 1) == "1\n"


@pytest.mark.parametrize(
    "text",
    [
        "$(inputs.none)", "$(inputs.list[2])", "$(inputs.list.size)", "$(self.x)",
        "$(inputs.file.basename.length)", "$(inputs.list.length.x)",
    ],
)  # fmt: skip
def test_a_reference_to_nothing_fails_and_is_named(text: str) -> None:
    with pytest.raises(ToolFailure) as caught:
        value(text)
    assert caught.value.code is ErrorCode.EXPRESSION_FAILED
    assert text in str(caught.value)


@pytest.mark.parametrize("text", ["$(1 + 1)", "${return 1;}", "$(inputs.a + 1)", "$(other.x)"])
def test_javascript_needs_its_requirement(text: str) -> None:
    with pytest.raises(BadTemplate, match="InlineJavascriptRequirement"):
        compile_expression(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(inputs.list.map(function(x) { return x / 10; }))", [1, 2]),
        ("${ // don't stop here )\n return {a: 1, b: null}; }", {"a": 1, "b": None}),
        ("$(inputs.file.format === undefined)", True),
        ("$('nothing' in inputs || inputs.hasOwnProperty('x'))", False),
        ("$(Object.keys(inputs).length)", 3),
        (
            "${ inputs.file.basename = 'b'; return inputs.file; }",
            {"class": "File", "basename": "b"},
        ),
        ("$(new Date(0))", "1970-01-01T00:00:00.000Z"),
        ("$(/[)}\"']+/.test('a\"'))", True),
        ("$(`${1 + 1})`)", "2)"),
        ("n=$(1/4), s=$('q')", "n=0.25, s=q"),
        ("$(1 // one\n)", 1),
    ],
)
def test_javascript(text: str, expected: Any) -> None:
    assert value(text, js=True) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("$(inputs.nothing)", "inputs has no 'nothing'"),
        ("$('sample_' + inputs.nothing)", "inputs has no 'nothing'"),
        ("${ return inputs.file.basname + '.txt'; }", "inputs.file has no 'basname'"),
        ("$(inputs.files.map(function(f) { return f.nam + 'x'; }))", "has no 'nam'"),
        ("$(self.nameroott + '.idx')", "self has no 'nameroott'"),
        ("$(runtime.core * 2)", "runtime has no 'core'"),
        ("$(inputs.list[7])", "inputs.list has no item [7], its length is 1"),
        ("$(inputs.file.format)", "its result is undefined"),
        ("${ return {a: [1, undefined]}; }", "its result.a[1] is undefined"),
        ("${ inputs.list.push(0); }", "its result is undefined"),
        ("$({a: {b: 0 / 0}})", "its result.a.b is NaN"),
        ("$(1e400)", "its result is Infinity"),
        ("$([-1 / 0])", "its result[0] is -Infinity"),
        ("$([function() {}])", "its result[0] is a function"),
        ("$({s: new Set([1])})", "its result.s is a Set"),
        ("$(Symbol('s'))", "a symbol"),
        ("n=$(inputs.list.nothing)", "inputs.list has no 'nothing'"),
    ],
)
def test_what_is_undefined_or_no_value_fails_and_is_named(text: str, named: str) -> None:
    file = {"class": "File", "basename": "a.txt", "nameroot": "a"}
    inputs = {"list": [1], "file": file, "files": [file]}
    compiled = compile_expression(text, True, place="argument 2")
    with pytest.raises(ToolFailure) as caught:
        compiled.evaluate(inputs, file, {"cores": 2})
    assert caught.value.code is ErrorCode.EXPRESSION_FAILED
    assert text in str(caught.value) and named in str(caught.value)
    assert "argument 2" in str(caught.value)


RECORDS = {
    "rec": {"name": "n", "none": None, "inner": {"deep": [{"x": 1}]}},
    "recs": [{"name": "a"}, {"name": "b"}],
    "file": {"class": "File", "basename": "a.txt", "metadata": {"run": 7}},
}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("$('x' + inputs.rec.nope)", "inputs.rec has no 'nope'"),
        ("$('x' + inputs.rec['nope'])", "inputs.rec has no 'nope'"),
        ("x$(inputs.rec.inner.deep[0].y + '')", "inputs.rec.inner.deep[0] has no 'y'"),
        ("$(inputs.recs.map(function(r) { return 'x' + r.nam; }))", "inputs.recs[0] has no 'nam'"),
        ("${ var t = ''; for (var r of inputs.recs) t += r.nam; return t; }", "[0] has no 'nam'"),
        ("$('x' + inputs.recs[1].nam)", "inputs.recs[1] has no 'nam'"),
        ("$('x' + inputs.recs[2])", "inputs.recs has no item [2], its length is 2"),
        ("$('x' + inputs.recs['name'])", "inputs.recs has no 'name'"),
        ("$('n' + inputs.recs.lenght)", "inputs.recs has no 'lenght'"),
        ("$('x' + inputs.file.metadata.rnu)", "inputs.file.metadata has no 'rnu'"),
        ("$('x' + self.nope)", "self has no 'nope'"),
        ("$('x' + self.inner.deep[0].y)", "self.inner.deep[0] has no 'y'"),
        ("$(f(inputs.rec))", "inputs.rec has no 'nope'"),
        ("${ var {nope} = inputs.rec; return 'x' + nope; }", "inputs.rec has no 'nope'"),
    ],
)
def test_a_name_that_a_record_has_not_fails_inside_of_a_text(text: str, named: str) -> None:
    lib = ("function f(record) { return 'x' + record.nope; }",)
    compiled = compile_expression(text, True, lib, place="argument 2")
    with pytest.raises(ToolFailure) as caught:
        compiled.evaluate(RECORDS, RECORDS["rec"])
    assert caught.value.code is ErrorCode.EXPRESSION_FAILED
    for told in (text, named, "argument 2"):
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$('x' in inputs.rec || inputs.rec.hasOwnProperty('x') || 7 in inputs.recs)", False),
        ("$('name' in inputs.rec && inputs.rec.hasOwnProperty('name') && 1 in inputs.recs)", True),
        ("$(Object.keys(inputs.rec).concat(Object.keys(inputs.recs)))",
         ["name", "none", "inner", "0", "1"]),
        ("$(JSON.parse(JSON.stringify(inputs)))", RECORDS),
        ("$(inputs)", RECORDS),
        ("$([inputs.rec, self])", [RECORDS["rec"], RECORDS["rec"]]),
        ("$('x' + inputs.rec.none)", "xnull"),
        ("$(inputs.recs.map(function(r) { return r.name; }).join('+'))", "a+b"),
        ("$(inputs.recs.filter(function(r) { return r.name == 'c'; }).length)", 0),
        ("$(inputs.recs.slice(1, 9).concat(inputs.recs, [1])[3])", 1),
        ("$(inputs.recs.indexOf('q') + inputs.recs.findIndex(function(r) { return false; }))", -2),
        ("$(inputs.recs.concat().reverse().map(function(r) { return r.name; }))", ["b", "a"]),
        ("${ var l = inputs.recs; l.sort(function(a, b) { return a.name < b.name ? 1 : -1; });"
         " return l[0].name; }", "b"),
        ("${ var l = inputs.recs; l.push({name: 'c'}); l[3] = {name: 'd'}; l.shift();"
         " l.splice(0, 1); return [l.length, l[1].name, l.pop().name]; }", [2, "d", "d"]),
        ("${ inputs.rec.fresh = 1; delete inputs.rec.none; return inputs.rec.fresh + 1; }", 2),
        ("${ var keys = []; for (var k in inputs.rec) keys.push(k);"
         " for (var i in inputs.recs) keys.push(i); return keys; }",
         ["name", "none", "inner", "0", "1"]),
        ("$(Array.isArray(inputs.recs) && inputs.recs instanceof Array"
         " && inputs.rec instanceof Object && inputs.rec.constructor === Object)", True),
        ("$(Object.assign({}, inputs.rec, {name: 'm'}).name + [...inputs.recs].length)", "m2"),
        ("$([inputs.recs.slice(1), inputs.rec].map((one) => one.toString().length))", [15, 15]),
        ("$(inputs.file.metadata.run + inputs.file.basename.length)", 12),
        ("$(inputs.file.format === undefined && inputs.file.size === undefined)", True),
        ("$(inputs.recs.at(-1).name)", "b"),
        ("$(inputs.recs.class || inputs.rec.class || inputs.file.class)", "File"),
    ],
)  # fmt: skip
def test_what_asks_for_names_and_walks_over_values_works_as_ever(text: str, expected: Any) -> None:
    assert compile_expression(text, True).evaluate(RECORDS, RECORDS["rec"]) == expected
    assert RECORDS["recs"] == [{"name": "a"}, {"name": "b"}]


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("$('c=' + inputs.file.checksum)", "c=undefined"),
        ("${ return `c=${inputs.file.checksum}`; }", "c=undefined"),
        ("a$('c=' + inputs.file.checksum)", "c=undefined"),
        ("${ return {a: ['x', inputs.file.format + '/' + inputs.file.size]}; }", "undefined/undef"),
        ("${ var o = {}; o[inputs.file.format] = 1; return o; }", '{"undefined":1}'),
        ("$(self.nameroot + '.idx')", "undefined.idx"),
        ("$('c=' + inputs.file['checksum'])", "c=undefined"),
        ("$('n=' + inputs.file.basename.lenght)", "n=undefined"),
        ("$('n=' + inputs.rec.name.lenght + '-' + inputs.text)", "n=undefined-undefined NaN"),
        ("$(inputs.rec.name.split('_')[1] + '.txt')", "undefined.txt"),
        ("${ function f() {} return 'x' + f(); }", "xundefined"),
        ("${ var x; return 'x' + x; }", "xundefined"),
        ("${ var o = {a: 1}; return 'x' + o.b; }", "xundefined"),
        ("$(typeof self.size === 'undefined' && 'x' + self.size)", "xundefined"),
        ("$('n=' + (inputs.file.size + 1))", "n=NaN"),
        ("$('n=' + parseInt(inputs.rec.name))", "n=NaN"),
        ("$('n=' + 1 / inputs.rec.name.indexOf('n'))", "n=Infinity"),
        ("$('x' + inputs.file)", "x[object Object]"),
        ("$([inputs.file, inputs.rec] + '.txt')", "[object Object],[object Object].txt"),
        ("$('t=' + new Date(inputs.rec.name))", "t=Invalid Date"),
        ("${ /* don't say 'undefined' */ return 'x' + self.size; } // 'undefined'", "xundefined"),
        ("$(g(self.size))", "<undefined>"),
        ("$(kind(self.size) || 'x' + self.size)", "xundefined"),
    ],
)
def test_undefined_and_nan_are_not_joined_into_texts(text: str, joined: str) -> None:
    inputs = RECORDS | {"text": "undefined NaN"}
    lib = (
        "function g(x) { return '<' + x + '>'; }",
        "function kind(x) { var t = typeof x; return t !== 'undefined'; }",
    )
    compiled = compile_expression(text, True, lib, place="argument 2")
    with pytest.raises(ToolFailure) as caught:
        compiled.evaluate(inputs, RECORDS["file"])
    assert caught.value.code is ErrorCode.EXPRESSION_FAILED
    for told in (text, joined, "was joined into its result", "argument 2"):
        assert told in str(caught.value)


def test_what_a_file_has_not_is_named_where_it_was_joined() -> None:
    compiled = compile_expression("$('c=' + inputs.file.checksum + self.size)", True)
    with pytest.raises(ToolFailure) as caught:
        compiled.evaluate(RECORDS, RECORDS["file"])
    assert "inputs.file has no 'checksum', self has no 'size'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(inputs.file.format ? 'f=' + inputs.file.format : 'none')", "none"),
        ("${ var f = inputs.file; if (f.checksum) return 'c' + f.checksum; return 'none'; }",
         "none"),
        ("$('f=' + (inputs.file.format || 'undefined'))", "f=undefined"),
        ("$(inputs.file.format || '-')", "-"),
        ("$('f=' + (inputs.file.format ?? 'NaN'))", "f=NaN"),
        ("$(typeof inputs.file.format)", "undefined"),
        ("$(inputs.file.format === undefined ? 'none' : inputs.file.format)", "none"),
        ("$('undefined: ' + inputs.rec.name)", "undefined: n"),
        ("$('x' + inputs.text)", "xundefined NaN"),
        ("$(inputs.text.split(' ').map(function(t) { return t + '!'; }))", ["undefined!", "NaN!"]),
        ("$(self.basename + (inputs.file.size === undefined ? '' : inputs.file.size))",
         "undefined.txt"),
        ("$('NaNo' + 1)", "NaNo1"),
        ("$('x' + inputs.odd + ' ' + -1 / 2)", "xInfinity [object Object] -0.5"),
        ("$('x' + JSON.stringify(inputs.rec.name))", 'x"n"'),
        ("$(inputs.list + '')", "7,8"),
        ("$(isNaN(parseInt(inputs.rec.name)) ? 'none' : 'n')", "none"),
        ("$([inputs.file.format, inputs.rec.name].join(''))", "n"),
        ("$('' + inputs.rec.none)", "null"),
    ],
)  # fmt: skip
def test_what_asks_whether_a_value_is_there_works_as_ever(text: str, expected: Any) -> None:
    inputs = RECORDS | {"text": "undefined NaN", "odd": "Infinity [object Object]", "list": [7, 8]}
    self_ = {"class": "File", "basename": "undefined.txt"}
    assert compile_expression(text, True).evaluate(inputs, self_) == expected


def test_whole_numbers_that_javascript_would_change_fail_where_it_reads_them() -> None:
    exact, inexact = 2**53, 1_700_000_000_123_456_789
    inputs = {"small": exact, "large": inexact, "pair": {"l": [inexact]}}
    assert compile_expression("$(inputs.large)", True).evaluate(inputs) == inexact
    assert compile_expression("$(inputs.small + 0)", True).evaluate(inputs) == exact
    for text in ("$('t' + inputs.large)", "$(inputs.pair.l[0] + 0)"):
        with pytest.raises(ToolFailure, match="JavaScript would change it"):
            compile_expression(text, True).evaluate(inputs)
    with pytest.raises(ToolFailure, match="self holds"):
        compile_expression("$(self + 0)", True).evaluate({}, inexact)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1000.0, "1000"), (1e23, "1" + "0" * 23), (1e-7, "0.0000001"), (0.1, "0.1"), (3, "3"),
        ([1e3, {"x": 2.5}], '[1000, {"x": 2.5}]'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("js", [False, True])
def test_a_number_has_one_text_by_whatever_way(number: Any, text: str, js: bool) -> None:
    assert compile_expression("n=$(self)", js).evaluate({}, number) == f"n={text}"
    if js:
        assert compile_expression("n=${return self;}", js).evaluate({}, number) == f"n={text}"


def test_the_library_is_there_and_sees_the_inputs() -> None:
    lib = ("function first() { return inputs.list[0]; }", "var two = 2;")
    assert value("$(first() * two)", js=True, lib=lib) == 20


def test_nothing_is_left_over_from_one_evaluation_to_the_next() -> None:
    counting = compile_expression("$(next())", True, ["var n = 0; function next() { return ++n; }"])
    assert [counting.evaluate({}), counting.evaluate({})] == [1, 1]
    with pytest.raises(ToolFailure, match="ReferenceError"):
        value("${ leak = 1; return leak; }", js=True)


@pytest.mark.parametrize("text", ["$(", "$(inputs.x", "${ return '}'", "$(a[)"])
def test_what_has_no_end_is_refused(text: str) -> None:
    with pytest.raises(BadTemplate):
        compile_expression(text, True)


def test_broken_javascript_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(BadTemplate, match="no valid JavaScript"):
        compile_expression("${ return 1 +; }", True)


@pytest.fixture
def _tight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SPDF_EXPRESSION_S", "0.2")
    monkeypatch.setenv("SPDF_EXPRESSION_BYTES", str(8 * 2**20))
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def in_a_new_thread(text: str) -> list[Any]:
    """What an expression gives in a thread (so, an engine) of its own, and `1 + 1` after it."""
    found: list[Any] = []

    def work() -> None:
        for one in (text, "$(1 + 1)"):
            try:
                found.append(compile_expression(one, True).evaluate({}))
            except ToolFailure as fault:
                found.append(fault.message)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found


@pytest.mark.usefixtures("_tight")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${ while (true) {} }", "longer than 0.2 s"),
        ("${ var a = []; while (true) a.push(new Array(1000).fill(a.length)); }", "bytes"),
        ("${ function f() { return f() + 1; } return f(); }", "call stack"),
        ("${ throw null; }", "threw null"),
    ],
)
def test_time_memory_and_depth_are_bounded_and_the_engine_goes_on(text: str, reason: str) -> None:
    message, after = in_a_new_thread(text)
    assert reason in message
    assert after == 2


def test_scripts_reach_neither_files_nor_processes() -> None:
    names = value("$(Object.getOwnPropertyNames(globalThis))", js=True)
    assert not {"require", "process", "std", "os", "fetch", "print", "console"} & set(names)
    assert str(os.getpid()) not in names
