"""Whose fault an error is: each that a step of a job can meet has a code of the right class."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.drivers.local import LocalDriver
from catalog.errors import ERRORS, BadInput, BadTemplate, ErrorClass, ErrorCode, StorageError
from catalog.refs import FileRef, ReplicaRef, StorageTrouble
from catalog.states import Phase
from tests.making import made_in
from workers.cwl.failures import ToolFailure
from workers.cwl.faults import code_of, of_node, told
from workers.job import RunningJob, run_attempt
from workers.node import Node
from workers.orphans import PayloadLedger
from workers.prepare import prepare
from workers.probe import check_disk, check_node, check_storage
from workers.slots import Capacity, Slots
from workers.spec import (
    JobResult,
    JobSpec,
    Outcome,
    OutputPort,
    OutputTarget,
    Resources,
    StepInput,
    StepSpec,
    TaskSpec,
)

E = ErrorCode
FULL = (errno.ENOSPC, errno.EDQUOT)
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
BROKEN = (errno.EIO, errno.ESTALE, errno.EROFS, errno.ENOTCONN)
OF_DATA = (
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR,
    errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EFBIG, errno.ENOTEMPTY, errno.EMLINK,
    errno.ETXTBSY, errno.EBUSY, errno.EXDEV,
)  # fmt: skip
LATER = (Phase.STAGE_IN, Phase.PAYLOAD, Phase.STAGE_OUT)


@pytest.mark.parametrize("phase", [None, *LATER])
def test_what_the_node_has_none_left_of_is_the_nodes_fault_whatever_the_step(
    phase: Phase | None,
) -> None:
    for numbers, code in (
        (FULL, E.NODE_DISK_FULL),
        (EXHAUSTED, E.NODE_EXHAUSTED),
        (BROKEN, E.NODE_DISK_FAILED),
    ):
        for number in numbers:
            assert code_of(OSError(number, os.strerror(number)), phase) is code
            assert ERRORS[code].error_class is ErrorClass.OUTAGE


@pytest.mark.parametrize("number", OF_DATA)
def test_what_a_name_or_a_mode_brings_about_is_its_fault_who_made_it(number: int) -> None:
    error = OSError(number, os.strerror(number))
    found = [code_of(error, phase) for phase in (None, *LATER)]
    assert found == [E.NODE_DISK_FAILED, E.BAD_JOB_INPUT, E.BAD_JOB_INPUT, E.OUTPUT_INVALID]


NOT_UTF8 = UnicodeEncodeError("utf-8", "res\udce4", 3, 4, "surrogates not allowed")


@pytest.mark.parametrize("error", [NOT_UTF8, RecursionError(), MemoryError(), BadInput("a fifo")])
def test_what_the_data_are_like_is_never_ours(error: Exception) -> None:
    assert [code_of(error, phase) for phase in LATER] == [
        E.BAD_JOB_INPUT, E.BAD_JOB_INPUT, E.OUTPUT_INVALID,
    ]  # fmt: skip
    assert {ERRORS[code_of(error, phase)].error_class for phase in LATER} == {ErrorClass.PERMANENT}


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), AssertionError(), ValueError()])
def test_only_a_defect_is_ours(error: Exception) -> None:
    assert {code_of(error, phase) for phase in (None, *LATER)} == {E.INTERNAL}


def test_who_knows_better_is_believed() -> None:
    for code in ErrorCode:
        assert code_of(ToolFailure(code, "x"), Phase.PAYLOAD) is code
        assert code_of(StorageError(code, "x"), Phase.STAGE_OUT) is code
    assert code_of(BadTemplate("x"), Phase.STAGE_IN) is E.BAD_JOB_INPUT


def test_no_fault_of_a_payload_or_a_document_is_of_class_system() -> None:
    ours = {code for code, info in ERRORS.items() if info.error_class is ErrorClass.SYSTEM}
    assert ours == {
        E.CONTAINER_FAILED, E.OUTPUT_EXISTS, E.REAPER_LOST, E.PILOT_LOST, E.PILOT_STOPPED,
        E.PROCESS_LOST, E.INTERNAL,
    }  # fmt: skip


def test_a_message_is_text_that_every_database_takes() -> None:
    assert told(NOT_UTF8) == "the name or text 'res\\xe4' is not UTF-8"
    assert told(ValueError("a\x00b\udce4")) == "a\\0b\\xe4"
    assert told(FileNotFoundError(2, "gone", "a\udce4")) == "[Errno 2] gone: 'a\\xe4'"
    assert told(ValueError("a\ud800")) == "a\\ud800"
    assert told(MemoryError()).startswith("a value is deeper or larger")


class Bench:
    """Runs single attempts of a tool, with real files."""

    def __init__(self, folder: Path, stored: str = "File", **tool: Any) -> None:
        self.folder = folder
        for name in ("in", "out", "work"):
            (folder / name).mkdir()
        document: dict[str, Any] = {
            "class": "CommandLineTool", "cwlVersion": "v1.2", "id": "t", "requirements": [],
            "hints": [], "inputs": [{"id": "f", "type": "File"}, {"id": "s", "type": "string"}],
            "baseCommand": ["sh", "-c"], "arguments": ["$(inputs.s)"],
            "outputs": [{"id": "o", "type": "File", "outputBinding": {"glob": "*"}}],
        } | tool  # fmt: skip
        step = StepSpec(document, (StepInput("f"), StepInput("s")), (OutputPort("o", stored),))
        targets = {"o": OutputTarget(1, "out", 2), "log": OutputTarget(2, "logs", 2)}
        self.task = TaskSpec(1, "t", 1, step, Resources(), 1, "digest", {}, {}, targets)
        self.troubles: list[StorageTrouble] = []
        self.node = Node(
            name="here",
            ledger=PayloadLedger(folder / "work", 1),
            slots=Slots(folder / "work" / "slots", Capacity(2, 1024)),
            storages={
                number: LocalDriver(name, folder / name) for number, name in ((1, "in"), (2, "out"))
            },
            tell=self.troubles.append,
        )
        (folder / "in" / "f.dat").write_bytes(b"hello")
        place = ReplicaRef(1, "f.dat")
        self.file = FileRef(7, "run/f.dat", 5, "adler32:062c0215", (place,))
        self.prepared = prepare(self.node, self.task)

    def run(self, script: str = "echo x > o.txt") -> JobResult:
        job = RunningJob(JobSpec(1, 1, 1, "k", 0, 1, {"f": (self.file,)}, {"s": script}))
        return run_attempt(self.node, self.prepared, job)

    def close(self) -> None:
        self.node.reapers.close()
        self.node.slots.close()
        self.node.ledger.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    yield from made_in(tmp_path, Bench)


def failed(result: JobResult, code: ErrorCode, kind: ErrorClass) -> None:
    assert (result.outcome, result.error) == (Outcome.FAILED, code), result.message
    assert ERRORS[code].error_class is kind


@pytest.mark.parametrize(
    "script",
    [
        "echo x > \"$(printf 'res\\344.txt')\"",
        "echo x > \"$(printf 'res\\001.txt')\"",
        "mkfifo res.txt",
        "ln -s nowhere res.txt",
        "ln -s res.txt res.txt",
        "echo '{\"o\": 3}' > cwl.output.json",
        "echo 'not json' > cwl.output.json",
        "python3 -c 'print(\"[\" * 100000)' > cwl.output.json",
        "printf '\\377' > cwl.output.json",
        "ln -s /proc/1/mem res.txt",
    ],
)  # fmt: skip
def test_whatever_a_payload_leaves_is_its_own_fault_at_once(
    bench: Callable[..., Bench], script: str
) -> None:
    result = bench().run(script)
    assert result.outcome is Outcome.FAILED
    assert result.error in (E.OUTPUT_INVALID, E.OUTPUT_MISSING), (result.error, result.message)
    assert str(result.message).isprintable()
    str(result.message).encode()


SCRIPTS = [{"class": "InlineJavascriptRequirement"}]
DEEP = 'python3 -c \'import os\nfor _ in range(1500): os.mkdir("d"); os.chdir("d")\''


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("File", {}),
        ("Directory", {}),
        ({"type": "array", "items": "Directory"}, {}),
        ("int", {"loadListing": "deep_listing", "outputEval": "$(self[0].listing.length + 0)"}),
    ],
)
def test_a_folder_deeper_than_python_goes_is_an_output_that_is_none(
    bench: Callable[..., Bench], kind: Any, more: dict[str, str]
) -> None:
    output = {"id": "o", "type": kind, "outputBinding": {"glob": "d", **more}}
    one = bench(outputs=[output], requirements=SCRIPTS)
    try:
        failed(one.run(DEEP), E.OUTPUT_INVALID, ErrorClass.PERMANENT)
    finally:
        # Python's own removal, and so pytest's, gives up on it.
        subprocess.run(["/bin/rm", "-rf", one.folder / "work"], check=True)


def test_a_folder_deeper_than_python_goes_is_measured_where_the_disk_was_full(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    seen = one.node.directory.parent / "last-full"
    assert seen.is_file()
    try:
        failed(one.run(f"{DEEP}; touch {seen}; exit 1"), E.NODE_DISK_FULL, ErrorClass.OUTAGE)
    finally:
        subprocess.run(["/bin/rm", "-rf", one.folder / "work"], check=True)


def test_a_deep_folder_beside_a_file_is_no_secondary_file_of_it(
    bench: Callable[..., Bench],
) -> None:
    output = {"id": "o", "type": "File", "secondaryFiles": [{"pattern": ".d"}]}
    one = bench(outputs=[{**output, "outputBinding": {"glob": "f"}}])
    try:
        result = one.run(f"{DEEP}; touch f; mv d f.d")
        failed(result, E.OUTPUT_INVALID, ErrorClass.PERMANENT)
    finally:
        subprocess.run(["/bin/rm", "-rf", one.folder / "work"], check=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"a": 1, "x": %s}' % ("[" * 101 + "]" * 101), "nested more than 100 levels deep"),
        ('{"a": 1, "x": %s}' % ('{"y": ' * 300 + "1" + "}" * 300), "nested more than 100 levels"),
        ('{"a": 1, "x": 1e999}', "number beyond the range"),
        ('{"a": 1, "x": [[%s]]}' % ("9" * 400), "number beyond the range"),
        ('{"a": 1, "x": "\\ud800"}', "no UTF-8"),
        ('{"a": 1, "\\ud800": 1}', "no UTF-8"),
        ('{"a": 1, "x": ["a\\u0000b"]}', "with a NUL in it"),
        ('{"a": 1, "x": "%s"}' % ("x" * (16 << 20)), "more than 16777216 bytes"),
    ],
    ids=["lists", "records", "double", "whole", "text", "name", "nul", "large"],
)
def test_a_value_that_no_row_can_hold_is_refused_on_whatever_database(
    bench: Callable[..., Bench], value: str, said: str
) -> None:
    kind = {"type": "record", "fields": [{"name": "a", "type": "int"}]}
    one = bench(outputs=[{"id": "o", "type": kind}], stored="value")
    made = one.folder / "made.json"
    made.write_text(f'{{"o": {value}}}')
    result = one.run(f"cat {made} > cwl.output.json")
    failed(result, E.OUTPUT_INVALID, ErrorClass.PERMANENT)
    assert said in str(result.message) and not result.values


def test_an_output_name_that_is_not_utf8_says_which(bench: Callable[..., Bench]) -> None:
    result = bench().run("echo x > \"$(printf 'res\\344.txt')\"")
    failed(result, E.OUTPUT_INVALID, ErrorClass.PERMANENT)
    assert "name or text 'res\\xe4.txt' is" in str(result.message), "as the payload knows it"
    assert "UTF-8" in str(result.message)


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [
        (None, 0o755, E.PROGRAM_NOT_FOUND),
        ("#!/no/such/interpreter\n", 0o755, E.PROGRAM_NOT_FOUND),
        ("\x7fELF of another machine", 0o755, E.PROGRAM_NOT_FOUND),
        ("#!/bin/sh\ntrue\n", 0o644, E.PROGRAM_NOT_FOUND),
    ],
)
def test_a_program_that_can_not_be_run_here_may_be_elsewhere(
    tmp_path: Path, bench: Callable[..., Bench], text: str | None, mode: int, code: ErrorCode
) -> None:
    program = tmp_path / "program"
    if text is not None:
        program.write_text(text)
        program.chmod(mode)
    result = bench(baseCommand=[str(program)]).run()
    failed(result, code, ErrorClass.PERMANENT)
    assert ERRORS[code].elsewhere
    assert str(program) in str(result.message)


def test_a_program_that_is_being_written_is_tried_again(
    tmp_path: Path, bench: Callable[..., Bench]
) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    with program.open("r+b"):
        result = bench(baseCommand=[str(program)]).run()
    failed(result, E.PROGRAM_BUSY, ErrorClass.TRANSIENT)


@pytest.mark.parametrize("argument", ["$('x'.repeat(3000000))", "$('a\\u0000b')"])
def test_arguments_that_no_program_takes_are_the_documents_fault(
    bench: Callable[..., Bench], argument: str
) -> None:
    tool = {"requirements": [{"class": "InlineJavascriptRequirement"}], "arguments": [argument]}
    failed(bench(**tool).run(), E.BAD_JOB_INPUT, ErrorClass.PERMANENT)


def test_an_input_of_a_storage_that_is_away_is_not_missing(bench: Callable[..., Bench]) -> None:
    one = bench()
    (one.folder / "in").rename(one.folder / "elsewhere")
    result = one.run()
    failed(result, E.STORAGE_UNAVAILABLE, ErrorClass.OUTAGE)
    assert (result.storage_id, result.phase) == (1, Phase.STAGE_IN)


def test_an_input_that_is_gone_from_a_storage_that_is_there_is_missing(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    (one.folder / "in" / "f.dat").unlink()
    failed(one.run(), E.INPUT_MISSING, ErrorClass.PERMANENT)


def test_an_input_with_a_copy_that_is_away_and_one_that_is_gone_is_waited_for(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    one.file = FileRef(
        7, "run/f.dat", 5, one.file.checksum, (ReplicaRef(1, "f.dat"), ReplicaRef(2, "gone.dat"))
    )
    (one.folder / "in").rename(one.folder / "elsewhere")
    failed(one.run(), E.STORAGE_UNAVAILABLE, ErrorClass.OUTAGE)


def test_of_the_copies_of_an_input_only_those_that_were_read_are_told_to_be_bad(
    bench: Callable[..., Bench],
) -> None:
    """And where none was good, one: it may be the node that can't read."""
    one = bench()
    first, second = ReplicaRef(1, "f.dat"), ReplicaRef(2, "copy.dat")
    one.file = FileRef(7, "run/f.dat", 5, one.file.checksum, (first, second))
    (one.folder / "out" / "copy.dat").write_text("hello")
    assert not one.run().bad_inputs
    (one.folder / "in" / "f.dat").write_text("cut")
    shutil.rmtree(one.folder / "out" / "out")
    result = one.run()
    assert (result.outcome, result.bad_inputs) == (Outcome.FINISHED, (first,)), "another is good"
    (one.folder / "out" / "copy.dat").write_text("cut, too")
    result = one.run()
    failed(result, E.INPUT_CORRUPT, ErrorClass.PERMANENT)
    assert result.bad_inputs == (first,)
    (one.folder / "in" / "f.dat").unlink()
    assert one.run().bad_inputs == (second,), "what is missing isn't bad"


def test_of_the_copies_of_an_input_the_one_that_the_payload_changed_is_bad(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    first, second = ReplicaRef(1, "f.dat"), ReplicaRef(2, "copy.dat")
    one.file = FileRef(7, "run/f.dat", 5, one.file.checksum, (first, second))
    place = one.folder / "in" / "f.dat"
    result = one.run(f"echo more > {place}; echo x > o.txt")
    failed(result, E.INPUT_MODIFIED, ErrorClass.PERMANENT)
    assert result.bad_inputs == (first,)


def test_an_output_storage_that_is_away_is_named_and_told_of(bench: Callable[..., Bench]) -> None:
    one = bench()
    object.__setattr__(one.node, "patience_s", 0.2)
    (one.folder / "out").rename(one.folder / "elsewhere")
    result = one.run()
    failed(result, E.STORAGE_UNAVAILABLE, ErrorClass.OUTAGE)
    assert (result.storage_id, result.phase) == (2, Phase.STAGE_OUT)
    assert {(t.storage_id, t.writing, t.needed_bytes) for t in one.troubles} == {(2, True, 2)}


def test_a_work_folder_that_can_not_be_made_is_the_nodes_fault(
    bench: Callable[..., Bench],
) -> None:
    one = bench()
    folder = one.node.directory
    folder.rename(folder.with_name("gone"))
    result = one.run()
    failed(result, E.NODE_DISK_FAILED, ErrorClass.OUTAGE)
    folder.with_name("gone").rename(folder)


def test_a_disk_with_room_is_well(tmp_path: Path) -> None:
    check_disk(tmp_path, said=os.strerror(errno.EIO))
    check_node(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_not_there_is_not_well(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        check_disk(tmp_path / "none")
    assert of_node(OSError(errno.ENOENT, "")) is None


def test_a_storage_is_looked_at_without_a_trace(tmp_path: Path) -> None:
    place = tmp_path / "storage"
    place.mkdir()
    driver = LocalDriver("s", place)
    for writing in (False, True):
        check_storage(driver, tmp_path, needed_bytes=10_000, writing=writing)
    assert not list(place.iterdir())
    place.rmdir()
    for writing in (False, True):
        with pytest.raises(StorageError):
            check_storage(driver, tmp_path, needed_bytes=1, writing=writing)


def test_a_storage_without_room_for_what_was_to_come_is_still_full(tmp_path: Path) -> None:
    place = tmp_path / "storage"
    place.mkdir()
    with pytest.raises(StorageError) as caught:
        check_storage(LocalDriver("s", place), tmp_path, needed_bytes=2**60, writing=True)
    assert caught.value.code is E.STORAGE_FULL


@pytest.mark.parametrize(
    ("numbers", "reading", "writing"),
    [
        (FULL, E.STORAGE_FULL, E.STORAGE_FULL),
        (EXHAUSTED, E.NODE_EXHAUSTED, E.NODE_EXHAUSTED),
        ((errno.EIO,), E.STORAGE_UNAVAILABLE, E.STORAGE_FAILED),
        ((errno.EROFS, errno.ESTALE, errno.EACCES, errno.EPERM, errno.ENODEV, errno.ELOOP,
          errno.EUCLEAN, errno.EINVAL, errno.ENXIO), E.STORAGE_UNAVAILABLE, E.STORAGE_UNAVAILABLE),
        ((errno.ENAMETOOLONG, errno.EFBIG), E.STORAGE_UNAVAILABLE, E.OUTPUT_INVALID),
        ((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), E.INPUT_MISSING, E.STORAGE_UNAVAILABLE),
    ],
)  # fmt: skip
def test_what_a_storages_file_system_says_has_a_code_for_each_way(
    tmp_path: Path, numbers: tuple[int, ...], reading: ErrorCode, writing: ErrorCode
) -> None:
    driver = LocalDriver("s", tmp_path)
    for number in numbers:
        error = OSError(number, os.strerror(number))
        for way, code in ((False, reading), (True, writing)):
            found = driver._explain("a/b", error, way)
            assert found.code is code
            assert found.of_path is (code is E.STORAGE_UNAVAILABLE), "perhaps it is that file alone"


def test_an_output_whose_name_is_too_long_for_its_storage_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "made"
    source.write_text("x")
    place = tmp_path / "s"
    place.mkdir()
    with pytest.raises(StorageError) as caught:
        LocalDriver("s", place).put(source, "n" * 300)
    assert caught.value.code is E.OUTPUT_INVALID


def test_a_name_that_is_too_long_is_told_with_the_mend(bench: Callable[..., Bench]) -> None:
    listing = {"class": "InitialWorkDirRequirement",
               "listing": [{"entryname": "$('n' + inputs.f.nameroot)", "entry": "x"}]}  # fmt: skip
    listing["listing"][0]["entryname"] = "n" * 256
    result = bench(requirements=[listing]).run()
    failed(result, E.BAD_JOB_INPUT, ErrorClass.PERMANENT)
    assert str(result.message).startswith(f"the name '{'n' * 256}' is too long for a file")
    assert str(result.message).endswith("a shorter one")
