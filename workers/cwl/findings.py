"""What lies in the output directory: found by patterns, described, and kept inside."""

# Paths are plain strings here: this runs for every output of every job.
# ruff: noqa: PTH102, PTH110, PTH112, PTH114, PTH116, PTH118, PTH207, PTH208, PTH211

import glob
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from catalog.errors import ErrorCode
from workers.cwl.failures import ToolFailure, bad_output
from workers.cwl.files import (
    check_object,
    file_uri,
    is_plain_name,
    leads_out,
    literal_name,
    name_it,
    place_of,
    set_place,
    sha1_of,
    shown,
)  # fmt: skip
from workers.cwl.left import is_straight
from workers.cwl.parameters import is_file_object
from workers.cwl.staging import with_secondary, write_literal

_KEPT = ("format", "secondaryFiles")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Findings:
    """Outputs below `outdir` (a real path). `sources` are the inputs' real paths by place.

    `inside` is the output directory's path in the payload's container, where it has another there.
    """

    outdir: str
    sources: Mapping[str, str]
    checksums: bool = False
    inside: str | None = None
    _files: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    """What was found, by path: the payload is dead, so it stays as it is."""

    def glob(
        self, patterns: Iterable[str], *, literal: bool = False, made: bool = False
    ) -> list[dict[str, Any]]:
        """What matches any of the patterns: each pattern's finds in byte order, none twice.

        `literal`: they are names. `made` by an expression, a pattern that finds nothing may be the
        name of a file.
        """
        names: dict[str, None] = {}
        for pattern in patterns:
            names.update(dict.fromkeys(self._matches(pattern, literal, made)))
        found = []
        for name in names:
            path = f"{self.outdir}/{name}" if name else self.outdir
            self.check_inside(path)
            self._files[path] = described = _described(path)
            found.append(dict(described))
        return found

    def _here(self, path: str) -> str:
        """A path that a payload gave, as it is outside of its container."""
        inside = self.inside
        if inside is not None and (path == inside or path.startswith(f"{inside}/")):
            return f"{self.outdir}{path[len(inside) :]}"
        return path

    def _matches(self, pattern: str, literal: bool, made: bool) -> list[str]:
        pattern = self._here(pattern)
        if pattern == self.outdir or pattern.startswith(f"{self.outdir}/"):
            pattern = pattern[len(self.outdir) + 1 :]
        if leads_out(pattern):
            raise bad_output(f"glob {pattern!r} leads out of the output directory")
        pattern = os.path.normpath(pattern) if pattern else ""
        if pattern in ("", "."):
            return [""]
        named = [pattern] if os.path.lexists(f"{self.outdir}/{pattern}") else []
        if literal or not ("\\" in pattern or glob.has_magic(pattern)):
            return named
        # A backslash takes a character's meaning away in glob(3), but not in Python's.
        python = _ESCAPED.sub(lambda found: glob.escape(found[1]), pattern)
        found = sorted(glob.glob(python, root_dir=self.outdir), key=os.fsencode)
        return found or (named if made else [])

    def adopt(self, value: Any) -> Any:
        """`value` with each File and Directory in it as it is on disk; literals are written.

        Raises `ToolFailure` for what isn't there or lies outside, and is no input.
        """
        if isinstance(value, list):
            return [self.adopt(one) for one in value]
        if not isinstance(value, Mapping):
            return value
        if is_file_object(value):
            check_object(value, bad_output)
            return self._adopted(value)
        return {key: self.adopt(one) for key, one in value.items()}

    def _adopted(self, value: Mapping[str, Any]) -> dict[str, Any]:
        path, made = self._found(value)
        for key in _KEPT:
            if value.get(key) is not None:
                made[key] = value[key]
        basename = value.get("basename")
        if basename is not None and basename != made["basename"]:
            if not is_plain_name(basename):
                raise bad_output(f"basename {basename!r} of an output is no file name")
            name_it(made, basename)
        if made["class"] != value["class"]:
            raise bad_output(f"{path!r} was given as a {value['class']} but is a {made['class']}")
        if made["class"] == "Directory":
            made["listing"] = self._listing(path, os.path.realpath(path), frozenset())
            _keep_formats(made["listing"], value.get("listing"))
        elif self.checksums:
            made["checksum"] = sha1_of(path)
        if "secondaryFiles" in made:
            made["secondaryFiles"] = [self._adopted(one) for one in made["secondaryFiles"]]
        return made

    def named(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """`value` with the names that follow from where it lies, as patterns need them."""
        check_object(value, bad_output)
        path = self._lies(value)
        if path is None:
            return name_it(dict(value), literal_name(value))
        name = value.get("basename") or os.path.basename(path)  # noqa: PTH119
        return name_it({**value, "path": path}, str(name))

    def _found(self, value: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Where an object lies, and how it is there; literals are written."""
        known = self._files.get(value.get("path") or "")
        if known is not None:
            return known["path"], dict(known)
        path = self._path_of(value)
        if path is None:
            path = self._write(value, self.outdir)
        return path, _described(path)

    def _lies(self, value: Mapping[str, Any]) -> str | None:
        """The path of this machine that an object has; None for a literal."""
        where = value.get("path") or value.get("location")
        if where is None or ("contents" in value and value.get("path") is None):
            return None
        path = place_of(value)
        if path is None:
            raise bad_output(f"output {where!r} is no path of this machine")
        return os.path.normpath(os.path.join(self.outdir, self._here(path)))

    def _path_of(self, value: Mapping[str, Any]) -> str | None:
        """Where the object lies; None for a literal. An input is named by its real place."""
        path = self._lies(value)
        if path is None:
            return None
        if not os.path.exists(path):
            raise bad_output(f"output {path!r} is not there")
        if not path.startswith(f"{self.outdir}/") and path in self.sources:
            return self.sources[path]
        self.check_inside(path)
        return path

    def check_place(self) -> None:
        """Refuse an output directory that is gone, or has a link in its place or above.

        What a link leads to isn't the payload's, and to take outputs is to move them.
        """
        if not os.path.lexists(self.outdir):
            raise ToolFailure(
                ErrorCode.OUTPUT_MISSING,
                f"the payload has removed its output directory, {self.outdir!r}, with all outputs",
            )
        if not is_straight(self.outdir) or not os.path.isdir(self.outdir):
            raise bad_output(
                f"the payload has replaced its output directory: there is none at {self.outdir!r} "
                "any more, perhaps a link; it must leave it where it is, and bring files into it"
            )

    def check_tree(self, path: str) -> None:
        """Refuse a directory out of which links lead, or back into itself."""
        self._listing(path, os.path.realpath(path), frozenset())

    def check_inside(self, path: str) -> None:
        """Refuse what lies, or leads by a link, outside the outdir and the inputs."""
        if path == self.outdir:
            return
        if path.startswith(f"{self.outdir}/"):
            at = self.outdir
            for part in path[len(self.outdir) + 1 :].split("/"):
                at = f"{at}/{part}"
                if os.path.islink(at):
                    break
            else:
                return
        real = os.path.realpath(path)
        if real.startswith(f"{self.outdir}/") or self._is_input(real):
            if not os.path.exists(real):
                raise bad_output(f"output {path!r} is a link to nothing")
            return
        raise bad_output(f"output {path!r} lies outside the output directory (at {real!r})")

    def _is_input(self, real: str) -> bool:
        return real in self._real_sources or any(
            real.startswith(f"{source}/") for source in self._real_sources
        )

    @cached_property
    def _real_sources(self) -> frozenset[str]:
        return frozenset(os.path.realpath(one) for pair in self.sources.items() for one in pair)

    def _listing(self, path: str, real: str, above: frozenset[str]) -> list[dict[str, Any]]:
        """What a directory holds that was found inside; only links can lead out of it again."""
        if real in above:
            raise bad_output(f"output directory {path!r} contains itself through a link")
        entries = []
        for name in sorted(os.listdir(path), key=os.fsencode):
            inner, leads = f"{path}/{name}", os.path.islink(f"{path}/{name}")
            if leads:
                self.check_inside(inner)
            made = _described(inner)
            if made["class"] == "Directory":
                at = os.path.realpath(inner) if leads else f"{real}/{name}"
                made["listing"] = self._listing(inner, at, above | {real})
            elif self.checksums:
                made["checksum"] = sha1_of(inner)
            entries.append(made)
        return entries

    def _write(self, value: Mapping[str, Any], folder: str) -> str:
        """Write a literal below `folder`; what a Directory literal lists is linked into it."""
        name = literal_name(value)
        if not is_plain_name(name):
            raise bad_output(f"an output literal needs a plain basename, not {name!r}")
        path = f"{folder}/{name}"
        if os.path.lexists(path):
            raise bad_output(f"the output literal {name!r} would overwrite a file of that name")
        if value["class"] == "File":
            try:
                write_literal(path, value)
            except ToolFailure as fault:
                raise bad_output(f"output {name!r}: {fault.message}") from fault
            return path
        if not isinstance(value.get("listing"), list):
            raise bad_output(f"output Directory {shown(value)} has neither path nor listing")
        os.mkdir(path)
        for entry in value["listing"]:
            for one in with_secondary(entry):
                self._list(one, path)
        return path

    def _list(self, value: Mapping[str, Any], folder: str) -> None:
        """Bring what a Directory literal lists into its folder."""
        source = self._path_of(value)
        if source is None:
            self._write(value, folder)
            return
        name = value.get("basename") or os.path.basename(source)  # noqa: PTH119
        if not is_plain_name(name):
            raise bad_output(f"basename {name!r} in an output Directory is no file name")
        inner = f"{folder}/{name}"
        if not os.path.lexists(inner):
            os.symlink(source, inner)
        elif os.path.realpath(inner) != os.path.realpath(source):
            raise bad_output(
                f"an output Directory lists two files named {name!r}: {os.path.realpath(inner)!r} "
                f"and {source!r}; give one another basename"
            )


def _keep_formats(listing: list[dict[str, Any]], given: Any) -> None:
    """Let what lies in a Directory have the formats that its listing says."""
    said = {one.get("basename"): one for one in given or ()}
    for one in listing:
        other = said.get(one["basename"], {})
        if other.get("format") is not None:
            one["format"] = other["format"]
        if one.get("listing"):
            _keep_formats(one["listing"], other.get("listing"))


def _described(path: str) -> dict[str, Any]:
    """The File or Directory object of a path."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise bad_output(f"output {path!r} can't be read: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode):
        made: dict[str, Any] = {"class": "Directory", "location": file_uri(path)}
    elif stat.S_ISREG(found.st_mode):
        made = {"class": "File", "location": file_uri(path), "size": found.st_size}
    else:
        raise bad_output(f"output {path!r} is neither a file nor a directory")
    set_place(made, path)
    made.pop("dirname", None)
    return made
