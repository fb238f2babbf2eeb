"""Fixed files: stored once by their content, and never taken for what another has put there."""

from pathlib import Path
from typing import Any

import pytest

from catalog import files, storages
from catalog.db import Catalog
from catalog.errors import BadInput, Conflict
from catalog.jobfiles import file_refs
from catalog.models import StorageKind, StorageRole
from catalog.states import JobState
from flows import fixed
from flows.fixed import store_file, store_files
from flows.trial import Trial, from_file


def test_other_bytes_at_its_place_are_not_taken_for_a_fixed_file(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with catalog.write() as session:
        root = tmp_path / "internal"
        storages.add(session, "internal", StorageKind.LOCAL, StorageRole.INTERNAL, str(root))
    table = tmp_path / "table"
    table.write_text("1 2 3")
    first = store_file(catalog, table)
    assert store_file(catalog, table) == first, "once"
    (place,) = root.rglob("table")
    place.unlink()
    place.write_text("3 2 1")
    assert store_file(catalog, table) == first, "the same file, at another place"
    assert sorted(path.read_text() for path in root.rglob("table")) == ["1 2 3", "3 2 1"]
    assert place.read_text() == "3 2 1"
    for path in root.rglob("table"):
        path.chmod(0o600)
        path.write_text("3 2 1")
    monkeypatch.setattr(fixed, "_MOST_PLACES", 2)
    with pytest.raises(Conflict, match="has other bytes under"):
        store_file(catalog, table)


def stored(catalog: Catalog, folder: Path, **said: Any) -> dict[str, Any]:
    """The value of a File of five bytes, of which more is said."""
    with catalog.write() as session:
        root = str(folder / "internal")
        storages.add(session, "internal", StorageKind.LOCAL, StorageRole.INTERNAL, root)
    table = folder / "calib_v3.txt"
    table.write_text("hello")
    found: dict[str, Any] = store_files(
        catalog, {"class": "File", "location": table.as_uri(), **said}
    )
    return found


def test_a_fixed_file_has_the_basename_that_it_is_given(catalog: Catalog, tmp_path: Path) -> None:
    value = stored(catalog, tmp_path, basename="calib.txt")
    assert value["basename"] == "calib.txt"
    with catalog.read() as session:
        assert file_refs(session, [value["file_id"]])[value["file_id"]].basename == "calib.txt"
    assert store_file(catalog, tmp_path / "calib_v3.txt") != value["file_id"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"basename": "a/b"}, "the basename 'a/b' of file"),
        ({"size": 6}, "has 5 bytes, and its File says 6"),
        ({"checksum": "sha1$00"}, "has checksum sha1[$]aaf4.*, and its File says 'sha1[$]00'"),
        ({"checksum": "md5$5d41402abc4b2a76b9719d911017c592"}, "CWL writes sha1[$]"),
    ],
)
def test_a_fixed_file_that_is_not_what_is_said_of_it_is_refused(
    catalog: Catalog, tmp_path: Path, said: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadInput, match=reason):
        stored(catalog, tmp_path, **said)


def test_a_fixed_file_may_state_what_it_is(catalog: Catalog, tmp_path: Path) -> None:
    checksum = "sha1$AAF4C61DDCC5E8A2DABEDE0F3B482CD9AEA9434D"
    assert "file_id" in stored(catalog, tmp_path, size=5, checksum=checksum)


TEMPLATE = """\
cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs:
  files: File[]
  cal: {type: File, default: {class: File, location: calib_v3.txt, basename: calib.txt}}
outputs: []
steps:
  s:
    scatter: f
    in:
      f: files
      cal: cal
      two: {default: {class: File, location: calib_v3.txt, basename: two.txt}}
    out: [o]
    run:
      class: CommandLineTool
      requirements:
        InitialWorkDirRequirement:
          listing: [$(inputs.cal), {class: File, location: calib_v3.txt, basename: four.txt}]
      inputs:
        f: File
        cal: File
        two: File
        three: {type: File, default: {class: File, location: calib_v3.txt, basename: three.txt}}
      baseCommand: [cat, calib.txt, four.txt]
      arguments: [$(inputs.two), $(inputs.three)]
      stdout: $(inputs.cal.nameroot)$(inputs.two.basename)$(inputs.three.basename)
      outputs: {o: stdout}
"""


def test_payloads_see_the_basenames_of_default_files(tmp_path: Path) -> None:
    (tmp_path / "t.cwl").write_text(TEMPLATE)
    (tmp_path / "calib_v3.txt").write_text("hello")
    (tmp_path / "raw").write_text("raw")
    with Trial(from_file(tmp_path / "t.cwl"), tmp_path / "raw", {}) as trial:
        (found,) = trial.stages()
        assert found.state is JobState.FINISHED, found.reason
        (made,) = (path for port, _, path, _ in found.files if port == "o")
        assert made.name.endswith(".calibtwo.txtthree.txt")
        assert made.read_text() == "hello" * 4


@pytest.mark.parametrize("place", ["file://[x", "file://elsewhere/x", "file:///a%00b", "s3://b/x"])
def test_a_fixed_file_that_is_no_file_of_this_machine_is_named(
    catalog: Catalog, place: str
) -> None:
    with pytest.raises(BadInput) as caught:
        store_files(catalog, {"class": "File", "location": place})
    assert repr(place) in str(caught.value)


def test_a_bad_copy_of_a_fixed_file_is_not_used_again_and_the_good_bytes_are_stored(
    catalog: Catalog, tmp_path: Path
) -> None:
    with catalog.write() as session:
        root = tmp_path / "internal"
        place = storages.add(
            session, "internal", StorageKind.LOCAL, StorageRole.INTERNAL, str(root)
        )
    table = tmp_path / "gain.tbl"
    table.write_text("gain=1.0417\n")
    file_id = store_file(catalog, table)
    (stored,) = root.rglob("gain.tbl")
    stored.chmod(0o600)
    stored.write_text("gain=9.9999\n")
    with catalog.write() as session:
        files.mark_bad(session, [file_id], place.id)
    assert store_file(catalog, table) == file_id
    with catalog.read() as session:
        (copy,) = files.replicas(session, [file_id])[file_id]
    assert (root / copy.path).read_text() == "gain=1.0417\n"
    assert root / copy.path != stored
