"""A copy of the project in which mutants are tried, one at a time."""

import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import coverage
import pytest

from tests.mutants.changes import ROOT, Mutant
from tests.mutants.exchange import Exchange, in_function

COPIED = ("catalog", "workers", "flows", "cli", "examples", "tests", "docs", "pyproject.toml")
LEAST_S, TIMES = 30.0, 10.0
"""Tests of a mutant may take so many times as long as they do without it."""
KILLED, SURVIVED, TIMEOUT, UNTRIED = "killed", "survived", "timeout", "untried"
_OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "-n", "0"),
    # One database is enough, and that one is there at once.
    *("-k", "not postgresql and not pooled"),
    # Of plugins that came with what was imported beforehand.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)
_SEVENTH = 7


class Laboratory:
    """The copy, in `folder`, which is an own file system: a mutant may remove anything in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fill()

    def _fill(self) -> None:
        # Tests may leave folders that are deeper than Python goes.
        subprocess.run(["rm", "-rf", *self._folder.iterdir()], check=True)
        for name in COPIED:
            if (source := ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, self._folder / name, ignore=ignored, symlinks=True)
            else:
                shutil.copy(source, self._folder / name)

    def try_out(
        self, tests: Sequence[str], mutants: Sequence[Mutant]
    ) -> Iterator[tuple[Mutant, str]]:
        """What tests say of mutants, each as soon as it is known.

        Ends the program where they fail without one.
        """
        said = self._folder / "said"
        trial = Trial(self._folder, mutants, said)
        code = _await(self._start(tests, trial), None)
        words = said.read_text("utf-8").split() if said.exists() else []
        if code or len(words) != len(mutants):
            sys.exit(f"{(self._folder / 'output').read_text()[-3000:]}\nTests fail: {tests}")
        for mutant, end in zip(mutants, words, strict=True):
            # What stands in a class; and a test may run it in a process of its own.
            again = end in (UNTRIED, SURVIVED)
            yield mutant, self._anew(tests, mutant) if again else end

    def _anew(self, tests: Sequence[str], mutant: Mutant) -> str:
        """Try a mutant in a process that imports it."""
        self._fill()
        (self._folder / mutant.path).write_text(mutant.text(), "utf-8")
        code = _await(self._start(tests, None), 10 * LEAST_S)
        self._fill()
        return TIMEOUT if code is None else KILLED if code else SURVIVED

    def _start(self, tests: Sequence[str], plugin: object) -> int:
        if child := os.fork():
            return child
        code = 99
        try:
            os.setpgid(0, 0)
            os.chdir(self._folder)
            sys.path.insert(0, str(self._folder))
            sys.dont_write_bytecode = True
            (self._folder / "tmp").mkdir(exist_ok=True)
            os.environ |= {
                "PYTHONPATH": str(self._folder),
                "PYTHONDONTWRITEBYTECODE": "1",
                "TMPDIR": str(self._folder / "tmp"),
            }
            _redirect(self._folder / "output")
            for name in [name for name in sys.modules if name.partition(".")[0] in COPIED]:
                del sys.modules[name]
            code = int(pytest.main([*_OPTIONS, *tests], plugins=[plugin] if plugin else None))
        except BaseException:  # noqa: BLE001 - this child tells and ends
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)


@dataclass(eq=False)
class Trial:
    """A plugin of pytest that, once tests are collected, forks for each mutant."""

    folder: Path
    mutants: Sequence[Mutant]
    said: Path
    took_s: dict[str, float] = field(default_factory=dict)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests once, then those that run what a mutant changes, on the mutant."""
        exchange = Exchange(self.folder)
        by_line = self._course(session)
        order = sorted(session.items, key=lambda item: self.took_s[item.nodeid])
        ends = []
        for mutant in self.mutants:
            runs: set[str] = set()
            for line in mutant.lines:
                runs |= by_line[mutant.path].get(line, set())
            items = [item for item in order if item.nodeid in runs or not in_function(mutant)]
            ends.append(self._try_out(session, exchange, mutant, items))
        session._setupstate.teardown_exact(None)
        self.said.write_text("\n".join(ends), "utf-8")
        return True

    def _course(self, session: pytest.Session) -> dict[str, dict[int, set[str]]]:
        """Which tests run which lines, by module; a failure ends the trial."""
        paths = sorted({mutant.path for mutant in self.mutants})
        cover = coverage.Coverage(
            data_file=None, config_file=False, include=[str(self.folder / one) for one in paths]
        )
        cover.start()
        for item in session.items:
            cover.switch_context(item.nodeid)
            begun = time.monotonic()
            _run(item)
            self.took_s[item.nodeid] = time.monotonic() - begun
            cover.switch_context("")
            if session.testsfailed:
                raise session.Failed("a test fails without a mutant")
        cover.stop()
        data = cover.get_data()
        return {
            path: {
                line: set(tests)
                for line, tests in data.contexts_by_lineno(str(self.folder / path)).items()
            }
            for path in paths
        }

    def _try_out(
        self,
        session: pytest.Session,
        exchange: Exchange,
        mutant: Mutant,
        items: Sequence[pytest.Item],
    ) -> str:
        if not items:
            return SURVIVED
        path = self.folder / mutant.path
        before = path.read_text("utf-8")
        path.write_text(mutant.text(), "utf-8")  # for processes that tests start
        try:
            return self._fork(session, exchange, mutant, items)
        finally:
            path.write_text(before, "utf-8")

    def _fork(
        self,
        session: pytest.Session,
        exchange: Exchange,
        mutant: Mutant,
        items: Sequence[pytest.Item],
    ) -> str:
        child = os.fork()
        if not child:
            code = 99
            try:
                os.setpgid(0, 0)
                _redirect(self.folder / "output-mutant")
                code = _SEVENTH if not exchange.put_in(mutant) else self._test(session, items)
            finally:
                os._exit(code)
        limit_s = LEAST_S + TIMES * sum(self.took_s[item.nodeid] for item in items)
        code = _await(child, limit_s)
        if code is None:
            return TIMEOUT
        if os.waitstatus_to_exitcode(code) == _SEVENTH:
            return UNTRIED
        return KILLED if code else SURVIVED

    def _test(self, session: pytest.Session, items: Sequence[pytest.Item]) -> int:
        for item in items:
            _run(item)
            if session.testsfailed:
                return 1
        return 0


def _run(item: pytest.Item) -> None:
    """Run a test, and leave up what is the session's, such as a server: mutants share it."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=item.session)


def _redirect(path: Path) -> None:
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _await(child: int, limit_s: float | None) -> int | None:
    """The status of a child, None where it takes too long; nothing of its group is left."""
    begun, code = time.monotonic(), None
    while limit_s is None or time.monotonic() - begun < limit_s:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            code = status
            break
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if code is None:
        os.waitpid(child, 0)
    return code
