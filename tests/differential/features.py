"""What the tools of generated cases do. Each function adds to a document and its job order."""

from typing import Any

from tests.differential.drawing import FORMATS, Draw

SHOW = (
    'for a; do printf "<%s>\\n" "$a"; done | '
    'sed -e \'s#/[^ ,=<>:]*/##g\' -e \'s#"dirname": "[^"]*"##g\''
)
"""Prints its arguments, one a line, without the folders that runners give inputs."""
TREE = (
    "find -L . -type f ! -name o.txt | LC_ALL=C sort | "
    'while read -r f; do printf "%s: " "$f"; tr "\\n" "|" < "$f" | sed "s#/[^ ,=<>:|]*/##g"; '
    "echo; done"
)
MAKE = (
    "mkdir -p d/e; printf a > a.txt; printf bb > b.txt; printf i > a.txt.idx; printf m > a.md5; "
    "printf x > 'x[1].dat'; printf y > x1.dat; printf z > d/z; printf w > d/e/w; : > empty; "
    'printf 7 > n; printf .h > .hidden; printf "{\\"k\\": 2}" > k.json'
)
GLOBS = (
    "a.txt", "*.txt", "none*", "missing", "d/*", "d", "*", "[ab].txt", "x[1].dat", "?.txt", ".",
    "empty", "d/e/w", "b*", "*.md5", "a.*", "./a.txt", "d/", ".hidden", "[!a]*.txt", "k.json", "n",
)  # fmt: skip


def inputs(draw: Draw, document: dict[str, Any], job: dict[str, Any], *, bound: float) -> None:
    """Inputs of any type, some with a default, some with a binding."""
    for name in draw.rng.sample(["x", "y", "z", "w"], draw.one(1, 2, 3)):
        kind = draw.type()
        entry: dict[str, Any] = {"id": name, "type": kind}
        if draw.chance(bound):
            entry["inputBinding"] = binding(draw, kind, name)
        _bind_inside(draw, kind)
        if kind == "File" or _items(kind) == "File":
            _of_files(draw, entry)
        if kind == "Directory" and draw.chance(0.5):
            entry["loadListing"] = draw.one("no_listing", "shallow_listing", "deep_listing")
        document["inputs"].append(entry)
        draw.names.append(name)
        value = draw.value(kind)
        if value is not None or draw.chance(0.5):
            job[name] = value
        if kind == "string" and draw.chance(0.2):
            entry["default"] = "by default"
            job.pop(name, None)


def _items(kind: Any) -> Any:
    return kind.get("items") if isinstance(kind, dict) else None


def _bind_inside(draw: Draw, kind: Any) -> None:
    """Bindings of a record's fields, and of an array's items."""
    if isinstance(kind, list):
        _bind_inside(draw, kind[1])
    elif isinstance(kind, dict):
        for one in kind.get("fields", ()):
            if draw.chance(0.7):
                one["inputBinding"] = binding(draw, one["type"], None)
            _bind_inside(draw, one["type"])
        if kind["type"] == "array":
            if draw.chance(0.3):
                kind["inputBinding"] = binding(draw, kind["items"], None)
            _bind_inside(draw, kind["items"])


def _of_files(draw: Draw, entry: dict[str, Any]) -> None:
    if draw.chance(0.3):
        entry["secondaryFiles"] = draw.rng.sample(
            [".md5?", ".idx?", {"pattern": "^.idx", "required": False},
             {"pattern": "$(self.nameroot + '.none')", "required": False},
             {"pattern": ".idx", "required": "$(1 > 2)"}],
            draw.one(1, 2),
        )  # fmt: skip
    if draw.chance(0.04):
        entry["format"] = draw.one(FORMATS[0], list(FORMATS))
    if entry["type"] == "File" and draw.chance(0.2):
        entry["loadContents"] = True


def binding(draw: Draw, kind: Any, name: str | None) -> dict[str, Any]:
    """A CommandLineBinding."""
    made: dict[str, Any] = {}
    if draw.chance(0.6):
        made["position"] = draw.one(-1, 0, 1, 2, 2, 10, "$(1 + 1)")
    if draw.chance(0.5):
        made["prefix"] = draw.one("-p", "--x=", "--long", "-")
        if draw.chance(0.4):
            made["separate"] = False
    if isinstance(kind, dict) and kind["type"] == "array" and draw.chance(0.4):
        made["itemSeparator"] = draw.one(",", " ", ":")
    if draw.chance(0.25):
        made["valueFrom"] = value_from(draw, name)
    if draw.shell and draw.chance(0.4):
        made["shellQuote"] = draw.one(True, False)
    return made


def value_from(draw: Draw, name: str | None) -> str:
    """An expression or a text; now and then a misspelt one."""
    own = "self" if name is None else f"inputs.{name}"
    if draw.chance(0.03):
        return str(
            draw.one("$(inputs.nope)", "${ return inputs.nope; }", "${ if (false) { return 1; } }")
        )
    return str(
        draw.one(
            "$(self)", "fixed", f"$({own})", "${ return self; }", "$(null)", "$([1, 'a', 2.5])",
            "v=$(self)", "$(typeof self)", "\\$(self)", "$(JSON.stringify(self === null))",
            "$(true)", "$({'k': [1]})", f"a $({own}) b", "$(runtime.cores)", "$([])", "$('')",
            f"$({own} === null ? 'none' : 'some')", "$(1/3)", "$(1e3)", "$('a\\nb')",
        )
    )  # fmt: skip


def command(draw: Draw, document: dict[str, Any], job: dict[str, Any]) -> None:
    """A command line of every kind of binding; what it was is the output."""
    draw.shell = draw.chance(0.25)
    inputs(draw, document, job, bound=0.85)
    if draw.shell:
        document["requirements"].append({"class": "ShellCommandRequirement"})
    document["baseCommand"] = ["sh", "-c", SHOW, "show"]
    document["arguments"] = [
        draw.one("word", "two words", value_from(draw, None), {
            **binding(draw, "string", None), "valueFrom": value_from(draw, None)})
        for _ in range(draw.one(0, 1, 2))
    ]  # fmt: skip
    document["stdout"] = draw.one("o.txt", "o[1].txt", "s/o.txt", f"$('o' + {draw.one(1, 2)}).txt")
    document["outputs"] = [{"id": "o", "type": "stdout"}]
    if draw.chance(0.2):
        _environment(draw, document)
    if draw.chance(0.1):
        document["successCodes"] = [0, 3]
        document["arguments"].insert(0, "x")


def _environment(draw: Draw, document: dict[str, Any]) -> None:
    value = draw.one("text", "$(inputs)", value_from(draw, draw.names[0]), "a $(runtime.cores)")
    document["requirements"].append(
        {"class": "EnvVarRequirement", "envDef": [{"envName": "V", "envValue": value}]}
    )
    document["baseCommand"] = [
        "sh",
        "-c",
        f'{SHOW}; printf "%s" "$V" | sed "s#/[^ ]*/##g; s#dirname.*#{{#"',
        "show",
    ]


def printed(draw: Draw, document: dict[str, Any], job: dict[str, Any]) -> None:
    """Values that a payload prints, as stdin, stderr, or its own output object."""
    document["inputs"] = [{"id": "f", "type": "File"}]
    job["f"] = draw.file()
    draw.names.append("f")
    value = draw.one(
        '{"o": 1}', '{"o": [1, 2.5]}', '{"o": null}', '{"o": "text"}', "{}", "[1]", "no json",
        '{"o": {"class": "File", "path": "made.txt"}}', '{"o": true}', '{"o": 1e3}',
        '{"o": {"class": "File", "location": "made.txt", "basename": "other.txt"}}',
        '{"o": {"class": "File", "path": "nothing.txt"}}', '{"o": {"a": {"b": []}}}',
    )  # fmt: skip
    document["baseCommand"] = ["sh", "-c", "cat; echo made > made.txt; echo warned >&2; " + (
        f"printf '%s' '{value}' > cwl.output.json" if draw.chance(0.7) else f"exit {draw.one(0, 3)}"
    )]  # fmt: skip
    document["stdin"] = "$(inputs.f.path)"
    fitting = "int" if value.endswith("1}") else "File" if "made.txt" in value else "Any"
    document["outputs"] = [{"id": "o", "type": draw.one("Any?", fitting, fitting, "double")}]
    if draw.chance(0.3):
        document["outputs"] = [{"id": "o", "type": "stdout"}, {"id": "e", "type": "stderr"}]
        document["stderr"] = draw.one("e.txt", "same.txt")
        document["stdout"] = draw.one("o.txt", "same.txt")
    if draw.chance(0.2):
        document["successCodes"] = [3]


def outputs(draw: Draw, document: dict[str, Any], job: dict[str, Any]) -> None:
    """Files found by globs of every kind, and values made of them."""
    inputs(draw, document, job, bound=0.0)
    document["baseCommand"] = ["sh", "-c", MAKE]
    for name in draw.rng.sample(["o", "p", "q"], draw.one(1, 2)):
        document["outputs"].append({"id": name, **_output(draw)})


def _output(draw: Draw) -> dict[str, Any]:
    many = draw.rng.sample(GLOBS, 2)
    glob = draw.one(*GLOBS, many, "$('a' + '.txt')", "$(['a.txt', 'd/z'])", "$(runtime.outdir)/n",
                    "x\\[1\\].dat", "$('x[1]').dat")  # fmt: skip
    if draw.chance(0.02):
        glob = "$(inputs.nope)"
    roll = draw.rng.random()
    made: dict[str, Any] = {"outputBinding": {"glob": glob}}
    if roll < 0.5:
        made["type"] = draw.one("File", "File?", "File[]", "File[]", "Any", "Any", "Directory",
                                ["null", "File", "File[]"], "File[]", "Any")  # fmt: skip
        if draw.chance(0.3):
            made["secondaryFiles"] = draw.rng.sample(
                [".idx", "^.md5", ".none", {"pattern": ".idx", "required": True},
                 "$(self.nameroot + '.md5')", "$(self.basename).idx", "$([])"],
                draw.one(1, 2),
            )  # fmt: skip
        if draw.chance(0.2):
            made["format"] = draw.one(FORMATS[0], "$('http://example.org/' + self.basename)")
        return made
    if roll < 0.9:
        made["outputBinding"] |= {
            "loadContents": draw.one(True, False),
            "outputEval": draw.one(
                "$(self.length)", "$(self[0].size)", "$(self[0].contents)", "$(self)", "$(null)",
                "$(self[0])", "$(self[1])", "$('text')", "$(self[0].basename)",
                "${ return self[0]; }",
                "$(self.map(function(f) { return f.basename; }))", "$(self[0].nameext)", "$(1e3)",
                "$(parseInt(self[0].contents))", "$({a: self.length, b: null})", "$(0.5)",
                "$(self.reverse())", "$({class: 'File', basename: 'made', contents: 'text'})",
                "${ self[0].basename = 'new.dat'; return self[0]; }", "$(runtime.exitCode)",
            ),
        }  # fmt: skip
        made["type"] = "Any?"
        if draw.chance(0.3):
            made["type"] = draw.one("Any", "int", "string", "double?", "int?", "File?",
                                    "string[]", "File[]", "long", "float")  # fmt: skip
        return made
    fields = [{"name": one, **_output(draw)} for one in ("fa", "fb")]
    return {"type": {"type": "record", "name": f"o{draw.rng.randrange(10**6)}", "fields": fields}}


def work(draw: Draw, document: dict[str, Any], job: dict[str, Any]) -> None:
    """An initial work directory of every kind of entry; what lies there is the output."""
    document["inputs"] = [
        {"id": "f", "type": "File"}, {"id": "g", "type": "File?"}, {"id": "l", "type": "File[]"},
        {"id": "d", "type": "Directory?"}, {"id": "n", "type": "double"},
    ]  # fmt: skip
    job |= {"f": draw.file(), "l": [draw.file() for _ in range(draw.one(0, 1, 2))]}
    job |= {"n": draw.value("double")}
    if draw.chance(0.6):
        job["g"] = draw.file()
    if draw.chance(0.6):
        job["d"] = draw.directory()
    listing: Any = [_entry(draw) for _ in range(draw.one(1, 2, 3))]
    if draw.chance(0.15):
        listing = draw.one(
            "$([inputs.f, {entryname: 't', entry: 'text'}])", "$(inputs.l)", "$([])",
            "${ return [inputs.g, inputs.f]; }",
            "$([{class: 'Directory', basename: 'm', listing: [inputs.f]}])",
        )  # fmt: skip
    document["requirements"].append({"class": "InitialWorkDirRequirement", "listing": listing})
    document["baseCommand"] = ["sh", "-c", TREE]
    document["stdout"] = "o.txt"
    document["outputs"] = [{"id": "o", "type": "stdout"}]
    if draw.chance(0.3):
        glob = draw.one("*.txt", "t", "*", "sub/*")
        document["outputs"].append(
            {"id": "p", "type": "File[]", "outputBinding": {"glob": glob}}
        )  # fmt: skip


def _entry(draw: Draw) -> Any:
    if draw.chance(0.3):
        return draw.one("$(inputs.f)", "$(inputs.l)", "$(inputs.g)", "$(inputs.d)",
                        "$([inputs.f, inputs.d])")  # fmt: skip
    made: dict[str, Any] = {
        "entry": draw.one(
            "text $(inputs.n)\n", "$(inputs.f)", "$(inputs.g)", "$(inputs.d)", "$(inputs.n)",
            "$({'a': [1, 2.5]})", "plain", "\\$(plain)", "$(inputs.f.basename)", "$(inputs.l)",
            "$({class: 'Directory', listing: [inputs.f]})", "$('a' + 1)", "$(null)", "$([1, 2])",
            "$({class: 'File', contents: 'made', basename: 'b'})",
        )
    }  # fmt: skip
    if draw.chance(0.8):
        made["entryname"] = draw.one(f"t{draw.rng.randrange(50)}", "sub/t", "two words.txt",
                                     "$(inputs.f.basename).cp", "folder/new", "x", "t")  # fmt: skip
        if draw.chance(0.05):
            made["entryname"] = draw.one("../out", "t/u", "a.txt")
    if draw.chance(0.3):
        made["writable"] = True
    return made


def expression(draw: Draw, document: dict[str, Any], job: dict[str, Any]) -> None:
    """An ExpressionTool: values computed, Files and Directories passed on, made and changed."""
    inputs(draw, document, job, bound=0.0)
    document["class"] = "ExpressionTool"
    name = draw.one(*draw.names)
    kind = next(one["type"] for one in document["inputs"] if one["id"] == name)
    body = draw.one(
        f"inputs.{name}", f"inputs.{name}", f"inputs.{name}", f"[inputs.{name}]", "null", "1e3",
        f"inputs.{name} === null", "'text'", "{class: 'File', basename: 'm.txt', contents: 'made'}",
        "{class: 'Directory', basename: 'm', listing: "
        "[{class: 'File', basename: 'x', contents: 'made'}]}",
        f"{{class: 'Directory', basename: 'm', listing: [inputs.{name}]}}", "inputs.nope", "[]",
        f"JSON.stringify(inputs.{name}).length > 1", f"inputs.{name}.basename", "0.1 + 0.2",
    )  # fmt: skip
    document["expression"] = draw.one(f"$({{o: {body}}})", f"${{ return {{o: {body}}}; }}")
    given = body == f"inputs.{name}"
    document["outputs"] = [{"id": "o", "type": _plain(kind) if given else draw.one("Any?", "Any")}]


def _plain(kind: Any) -> Any:
    """A type without its bindings."""
    if isinstance(kind, list):
        return [_plain(one) for one in kind]
    if not isinstance(kind, dict):
        return kind
    made = {key: value for key, value in kind.items() if key not in ("inputBinding", "name")}
    if "items" in made:
        made["items"] = _plain(made["items"])
    if "fields" in made:
        made["fields"] = [
            {"name": one["name"], "type": _plain(one["type"])} for one in made["fields"]
        ]
    return made
