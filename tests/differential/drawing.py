"""Types and values of generated tools: what is odd in the field comes often."""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = (
    "plain", "two words", "", "-dash", "quo'te", 'dou"ble', "$HOME", "`id`", "ümläut", "a;b", "*",
    "1e3", "true", "null", "a,b", "back\\slash", "under_score", "#hash", "{x}", "0123", "yes",
)  # fmt: skip
INTS = (0, 1, -7, 42, 2**31 - 1, -(2**31))
LONGS = (0, 5, 2**40, 2**53 - 1, -(2**53) + 1)
DOUBLES = (
    "1000", "1000.0", "1e3", "1.5", "-2.5e-7", "0.1", "123456789.125", "1.23e5", "-3", "0", "1e-5",
    "1e16", "6.02e23", "0.30000000000000004",
)  # fmt: skip
NAMES = (
    "a.txt", "b.tar.gz", "noext", ".hidden", "with space.dat", "x[1].txt", "dot.", "ümlaut.csv",
    "UPPER.TXT", "a+b.raw", "c#1.dat",
)  # fmt: skip
FORMATS = ("http://example.org/raw", "http://example.org/hits")


@dataclass(frozen=True)
class Spelt:
    """A number as it stands in the job order."""

    text: str


def dump(value: Any) -> str:
    """JSON text in which numbers are spelt as they were drawn."""
    if isinstance(value, Spelt):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dump, value)) + "]"
    return json.dumps(value)


@dataclass
class Draw:
    """A source of types and values for one case; input files are written below `folder`."""

    rng: random.Random
    folder: Path
    files: int = 0
    shell: bool = False
    names: list[str] = field(default_factory=list)

    def one(self, *choices: Any) -> Any:
        """One of the choices."""
        return self.rng.choice(choices)

    def chance(self, probability: float) -> bool:
        """True so often."""
        return self.rng.random() < probability

    def path(self, name: str, text: str) -> Path:
        """A new input file in a folder of its own."""
        self.files += 1
        path = self.folder / "data" / str(self.files) / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return path

    def file(self, name: str | None = None) -> dict[str, Any]:
        """A File: of a path, renamed, or a literal; now and then with secondary files."""
        name = name or self.one(*NAMES)
        text = self.one("", "line\n", "two\nlines\n", '{"k": 1}', "no newline")
        if self.chance(0.1):
            return {"class": "File", "contents": text, "basename": name}
        path = self.path(name, text)
        value: dict[str, Any] = {"class": "File", "location": path.as_uri()}
        if self.chance(0.1):
            value["basename"] = f"renamed-{self.files}.dat"
        if self.chance(0.15):
            value["format"] = self.one(*FORMATS)
        if self.chance(0.25):
            for suffix in self.rng.sample([".idx", ".md5"], self.one(1, 2)):
                path.with_name(path.name + suffix).write_text(f"{suffix} of {name}")
                if self.chance(0.7):
                    beside = path.with_name(path.name + suffix)
                    other = {"class": "File", "location": beside.as_uri()}
                    value.setdefault("secondaryFiles", []).append(other)
        return value

    def directory(self) -> dict[str, Any]:
        """A Directory with a few files, one of them deeper; or a literal that lists Files."""
        if self.chance(0.3):
            names = self.rng.sample(NAMES, self.one(1, 2, 3))
            listing = [self.file(name) for name in names]
            return {"class": "Directory", "basename": "lit", "listing": listing}
        path = self.path("x.txt", "in a folder\n")
        path.with_name("y.dat").write_text("y")
        (path.parent / "sub").mkdir()
        (path.parent / "sub" / "z").write_text("deep\n")
        return {"class": "Directory", "location": path.parent.as_uri(), "basename": "folder"}

    def type(self, depth: int = 2) -> Any:
        """A type of CWL."""
        simple = ("int", "long", "double", "float", "string", "boolean", "File", "string", "File")
        roll = self.rng.random()
        if depth == 0 or roll < 0.55:
            return self.one(*simple)
        if roll < 0.65:
            return ["null", self.type(depth - 1)]
        if roll < 0.85:
            return {"type": "array", "items": self.type(depth - 1)}
        if roll < 0.9:
            return {"type": "enum", "symbols": ["red", "green", "blue"]}
        if roll < 0.95:
            return "Directory"
        fields = [
            {"name": name, "type": self.type(depth - 1)}
            for name in self.rng.sample(["fa", "fb", "fc"], self.one(1, 2, 3))
        ]
        return {"type": "record", "name": f"r{self.rng.randrange(10**6)}", "fields": fields}

    def value(self, kind: Any) -> Any:
        """A value of a type."""
        if isinstance(kind, list):
            return None if self.chance(0.4) else self.value(kind[1])
        if isinstance(kind, dict):
            if kind["type"] == "array":
                return [self.value(kind["items"]) for _ in range(self.one(0, 1, 2, 3))]
            if kind["type"] == "enum":
                return self.one(*kind["symbols"])
            found = {one["name"]: self.value(one["type"]) for one in kind["fields"]}
            return {key: value for key, value in found.items() if value is not None}
        match kind:
            case "int":
                return self.one(*INTS)
            case "long":
                return self.one(*LONGS)
            case "double" | "float":
                return Spelt(self.one(*DOUBLES))
            case "boolean":
                return self.one(True, False)
            case "File":
                return self.file()
            case "Directory":
                return self.directory()
            case _:
                return self.one(*WORDS)
