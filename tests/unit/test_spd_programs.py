"""The programs of the detector example as a user runs them: results, exit codes, sentences."""

import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

SPD = Path(__file__).parents[2] / "examples" / "spd"
PROGRAMS = sorted(SPD.glob("*.py"))


def run(program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program of the example; its exit code must be `code`."""
    done = subprocess.run(
        [sys.executable, "-B", SPD / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def chain(home: Path, out: Path, calibration: Path | None = None) -> None:
    """Decode, reconstruct and select every slice under `home`, merge what is left."""
    out.mkdir()
    for path in sorted((home / "slices").iterdir()):
        hits, events = out / f"{path.stem}.hits", out / f"{path.stem}.events"
        table = calibration or home / "calibration.csv"
        run("decode.py", path, "--calibration", table, "--output", hits)
        run("reconstruct.py", hits, "--output", events)
        run("select_events.py", events, "--output", out / f"{path.stem}.selected")
    selected = sorted(out.glob("*.selected"))
    run("merge.py", *selected, "--output", out / "merged.dat")


def evaluation(home: Path, out: Path) -> dict[str, Any]:
    """What `evaluate.py --json` says."""
    files = ["--truth", home / "truth", "--kept", out / "merged.dat"]
    done = run("evaluate.py", *sorted(out.glob("*.events")), *files, "--json")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slices of run 42, small ones, with their truth."""
    home = tmp_path_factory.mktemp("simulated")
    run("simulate.py", "--outdir", home, "--files", 4, "--events-per-slice", 150)
    return home


@pytest.fixture(scope="module")
def chained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what the chain makes of them."""
    out = tmp_path_factory.mktemp("chained") / "out"
    chain(simulated, out)
    return out


def test_chain_finds_the_true_tracks_and_drops_the_bytes(simulated: Path, chained: Path) -> None:
    result = evaluation(simulated, chained)
    assert result["slices"] == 4
    assert result["findable"] > 2000
    assert 0.95 < result["efficiency"] <= 1
    assert 0.95 < result["purity"] <= 1
    assert result["event_efficiency"] > 0.95
    assert 0.002 < result["pt_resolution"] < 0.03
    assert result["dropped"] > 0.95
    raw_bytes = sum(path.stat().st_size for path in (simulated / "slices").iterdir())
    run_42 = result["runs"]["42"]
    assert run_42["raw_bytes"] == raw_bytes == result["raw_bytes"]
    assert run_42["kept_bytes"] == (chained / "merged.dat").stat().st_size


def test_text_of_evaluation_names_the_figures(simulated: Path, chained: Path) -> None:
    said = run("evaluate.py", *chained.glob("*.events"), "--truth", simulated / "truth").stdout
    assert re.search(r"efficiency +9\d\.\d\d %", said)
    assert re.search(r"purity +(9\d|100)\.\d\d %", said)


def test_without_calibration_tracks_are_lost(simulated: Path, tmp_path: Path) -> None:
    lines = (simulated / "calibration.csv").read_text().splitlines()
    flat = tmp_path / "flat.csv"
    flat.write_text("\n".join([lines[0], *(f"{i},0,0,0" for i in range(10))]) + "\n")
    chain(simulated, tmp_path / "out", flat)
    assert evaluation(simulated, tmp_path / "out")["efficiency"] < 0.5


def test_shuffled_truth_takes_purity_away(simulated: Path, chained: Path, tmp_path: Path) -> None:
    truth = shutil.copytree(simulated / "truth", tmp_path / "truth")
    for path in truth.iterdir():
        with np.load(path) as archive:
            tables = dict(archive)
        tables["word_track"] = np.random.default_rng(1).permutation(tables["word_track"])
        with path.open("wb") as file:
            np.savez(file, **tables)
    result = evaluation(tmp_path, chained)
    assert result["purity"] < 0.01
    assert result["efficiency"] < 0.01


def test_same_input_gives_same_bytes(simulated: Path, chained: Path, tmp_path: Path) -> None:
    run("simulate.py", "--outdir", tmp_path, "--files", 2, "--events-per-slice", 150)
    for path in (tmp_path / "slices").iterdir():
        assert path.read_bytes() == (simulated / "slices" / path.name).read_bytes()
    chain(tmp_path, tmp_path / "out")
    for path in (tmp_path / "out").glob("run*"):
        assert path.read_bytes() == (chained / path.name).read_bytes()


def test_another_seed_gives_other_slices(simulated: Path, tmp_path: Path) -> None:
    arguments = ("--outdir", tmp_path, "--files", 1, "--events-per-slice", 150, "--seed", 9)
    run("simulate.py", *arguments)
    name = "slices/run0042-00001.raw"
    assert (tmp_path / name).read_bytes() != (simulated / name).read_bytes()


def test_slice_without_selected_events_leaves_no_file(chained: Path, tmp_path: Path) -> None:
    events = next(iter(sorted(chained.glob("*.events"))))
    out = tmp_path / "none.selected"
    done = run("select_events.py", events, "--output", out, "--min-pt", 50)
    assert done.stdout.startswith("0 of ")
    assert not out.exists()


def test_merge_holds_the_events_of_all_files_in_their_order(chained: Path) -> None:
    parts = sorted(chained.glob("*.selected"))
    assert 0 < len(parts) < 4, "the fixture should have slices with and without events"
    expected: dict[str, list[np.ndarray]] = {"slices": [], "events": [], "tracks": [], "words": []}
    for path in parts:
        with np.load(path) as archive:
            for name, tables in expected.items():
                tables.append(archive[name])
    with np.load(chained / "merged.dat") as merged:
        assert merged["words"].tolist() == np.concatenate(expected["words"]).tolist()
        assert merged["events"]["slice"].tolist() == [
            number for table in expected["events"] for number in table["slice"]
        ]
        for row, event in enumerate(merged["events"]):
            begin = event["first_track"]
            tracks = merged["tracks"][begin : begin + event["n_tracks"]]
            assert (tracks["event"] == row).all()
            assert len(tracks) >= 2
        assert merged["events"]["n_words"].sum() == len(merged["words"])
        assert ((merged["events"]["mass"] > 2.7) & (merged["events"]["mass"] < 3.5)).all()


def test_merge_of_nothing_is_an_empty_file(tmp_path: Path) -> None:
    run("merge.py", "--output", tmp_path / "merged")
    with np.load(tmp_path / "merged") as merged:
        assert len(merged["events"]) == 0


def test_nearly_empty_slice_goes_through(tmp_path: Path) -> None:
    run("simulate.py", "--outdir", tmp_path, "--files", 2, "--events-per-slice", 1)
    for path in (tmp_path / "slices").iterdir():
        path.write_bytes(with_words(path.read_bytes(), b""))
    chain(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.selected"))


def with_words(data: bytes, payload: bytes) -> bytes:
    """The slice with another payload, its count and checksum put right."""
    counts = struct.pack("<II", len(payload) // 8, zlib.crc32(payload))
    return data[:20] + counts + data[28:64] + payload


CORRUPTIONS = {
    "don't fit the checksum": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "hit words but": lambda data: data[:-8],
    "bytes follow": lambda data: data + b"abc",
    "it has 40 bytes": lambda data: data[:40],
    "it has 0 bytes": lambda data: b"",
    "it begins with": lambda data: b"X" + data[1:],
    "version is 7": lambda data: data[:8] + b"\x07" + data[9:],
    "clock tick is": lambda data: data[:28] + b"\x01" + data[29:],
    "1 hit words name no channel": lambda data: with_words(data, struct.pack("<Q", 15 << 28)),
    "the first is word 0": lambda data: with_words(data, struct.pack("<Q", 1 << 63)),
    "or lie outside": lambda data: with_words(data, struct.pack("<Q", 0xFFFFFFF)),
}


@pytest.mark.parametrize(("reason", "corrupt"), CORRUPTIONS.items(), ids=CORRUPTIONS)
def test_corrupt_slice_is_refused_for_good(
    simulated: Path, tmp_path: Path, reason: str, corrupt: Callable[[bytes], bytes]
) -> None:
    path, hits = tmp_path / "bad.raw", tmp_path / "bad.hits"
    path.write_bytes(corrupt((simulated / "slices/run0042-00001.raw").read_bytes()))
    table = simulated / "calibration.csv"
    done = run("decode.py", path, "--calibration", table, "--output", hits, code=65)
    assert re.fullmatch(r"error: bad\.raw is corrupt: .+\.\n", done.stderr)
    assert reason in done.stderr
    assert not hits.exists()


def test_simulate_corrupts_the_slice_asked_for(simulated: Path, tmp_path: Path) -> None:
    arguments = ("--outdir", tmp_path, "--files", 2, "--events-per-slice", 150, "--corrupt", 2)
    run("simulate.py", *arguments)
    table, hits = tmp_path / "calibration.csv", tmp_path / "x.hits"
    for number, code in ((1, 0), (2, 65)):
        path = tmp_path / f"slices/run0042-0000{number}.raw"
        run("decode.py", path, "--calibration", table, "--output", hits, code=code)


@pytest.mark.parametrize(
    ("program", "arguments", "code"),
    [
        ("decode.py", ["{raw}", "--calibration", "{raw}", "--output", "o"], 66),
        ("decode.py", ["missing", "--calibration", "{table}", "--output", "o"], 66),
        ("decode.py", ["{raw}", "--output", "o"], 2),
        ("reconstruct.py", ["{raw}", "--output", "o"], 66),
        ("reconstruct.py", ["{events}", "--output", "o"], 66),
        ("select_events.py", ["{table}", "--output", "o"], 66),
        ("select_events.py", ["{events}", "--output", "o", "--min-tracks", "1"], 2),
        ("merge.py", ["{raw}", "--output", "o"], 66),
        ("evaluate.py", ["{events}", "--truth", "nowhere"], 66),
        ("simulate.py", ["--outdir", "o", "--files", "0"], 2),
        ("simulate.py", ["--outdir", "o", "--run", "-1"], 2),
        ("simulate.py", ["--outdir", "{raw}/x"], 74),
        ("reconstruct.py", ["{hits}", "--output", "/dev/null/x"], 74),
    ],
)
def test_bad_input_is_one_sentence_and_a_code(
    simulated: Path, chained: Path, tmp_path: Path, program: str, arguments: list[str], code: int
) -> None:
    names = {
        "raw": simulated / "slices/run0042-00001.raw",
        "table": simulated / "calibration.csv",
        "hits": chained / "run0042-00001.hits",
        "events": chained / "run0042-00001.events",
    }
    given = [argument.format(**names) for argument in arguments]
    given = [str(tmp_path / "o") if argument == "o" else argument for argument in given]
    done = run(program, *given, code=code)
    assert "Traceback" not in done.stderr
    assert len(re.findall(r"^.*error: .+\.?$", done.stderr, re.MULTILINE)) == 1
    assert not (tmp_path / "o").exists()


def test_truth_of_another_slice_is_refused(simulated: Path, chained: Path, tmp_path: Path) -> None:
    run("simulate.py", "--outdir", tmp_path, "--files", 1, "--events-per-slice", 3)
    events = chained / "run0042-00001.events"
    done = run("evaluate.py", events, "--truth", tmp_path / "truth", code=66)
    assert "was not made from the slice" in done.stderr


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_program_text_travels_in_a_template_unchanged(path: Path) -> None:
    """CWL would evaluate `$(` and `${` of an included program, and then drop backslashes."""
    text = path.read_text(encoding="utf-8")
    assert "$(" not in text
    assert "${" not in text
    assert "\r" not in text


@pytest.mark.parametrize("tool", ["decode", "reconstruct", "select", "merge"])
def test_tool_carries_every_module_that_its_program_imports(tool: str) -> None:
    document = YAML(typ="safe").load((SPD / f"{tool}.cwl").read_text())
    listing = document["requirements"]["InitialWorkDirRequirement"]["listing"]
    carried = {entry["entryname"] for entry in listing}
    assert all(entry["entry"] == {"$include": entry["entryname"]} for entry in listing)
    local = {path.name for path in PROGRAMS}
    needed, todo = set(), [document["baseCommand"][-1]]
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            imports = re.findall(r"^(?:import|from) (\w+)", (SPD / name).read_text(), re.MULTILINE)
            todo += [f"{module}.py" for module in imports if f"{module}.py" in local]
    assert carried == needed
