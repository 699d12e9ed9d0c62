"""`vsearch verify` on damaged catalogues: what is wrong is named, `--repair` mends it, and no video is decoded again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.conftest import Vsearch
from tests.media import write_video

ROWS = {
    "moments shifted": "UPDATE moments SET start_ms = start_ms + 1000, end_ms = end_ms + 1000",
    "a moment that ends at 27 h": "UPDATE moments SET end_ms = 97200000 WHERE id = 1",
    "fingerprints exchanged": "UPDATE videos SET fingerprint = (SELECT fingerprint FROM videos v WHERE v.id = 3 - videos.id)",
    "unknown states": "UPDATE videos SET state = 'unheard of'",
    "negative sizes": "UPDATE videos SET size = -1",
    "text that is none": "UPDATE videos SET container = CAST(x'ff' AS TEXT)",
    "frame counts": "UPDATE frame_sets SET count = count + 1",
    "live generation not a number": "UPDATE meta SET value = 'x' WHERE key = 'live_generation'",
    "schema not a number": "UPDATE meta SET value = 'x' WHERE key = 'schema'",
    "encoder spec not JSON": "UPDATE encoders SET spec = '{'",
    "query vectors replaced": "INSERT INTO text_vectors (encoder_id, text, vector) VALUES (1, 'a', zeroblob(128))",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    from typer.testing import CliRunner

    from vsearch.cli import command_line

    folder = tmp_path_factory.mktemp("sound")
    (folder / "videos").mkdir()
    for i, frames in enumerate((50, 120)):
        write_video(folder / "videos" / f"{i}.mp4", "mpeg4", frames=frames)
    done = CliRunner().invoke(
        command_line("index", "verify"),
        ["index", str(folder / "videos"), "--model", str(tiny_model), "--library", str(folder / "library")],
    )
    assert done.exit_code == 0, done.output
    return folder


def moments(library: Path) -> list[tuple[int, ...]]:
    with sqlite3.connect(library / "catalogue.sqlite") as connection:
        columns = "v.fingerprint, v.rel_path, m.start_ms, m.end_ms, first_frame, last_frame"
        joined = "moments m JOIN frame_sets f ON f.id = m.frame_set_id JOIN videos v USING (fingerprint)"
        rows = connection.execute(f"SELECT {columns} FROM {joined} ORDER BY 1, 2, 3").fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize("statement", ROWS.values(), ids=ROWS)
def test_wrong_rows_are_named_and_mended(statement: str, library: Path, tmp_path: Path) -> None:
    import shutil

    from typer.testing import CliRunner

    from vsearch.cli import command_line

    case = tmp_path / "case"
    shutil.copytree(library, case)
    before = moments(case / "library")

    def run(verb: str, *more: str) -> tuple[int, str]:
        place = ["--library", str(case / "library")]
        done = CliRunner().invoke(command_line(verb, "models"), [verb, *more, *place])
        assert "unexpected fault" not in done.output
        return done.exit_code, done.output

    with sqlite3.connect(case / "library" / "catalogue.sqlite") as connection:
        connection.execute(statement)
    connection.close()
    code, said = run("verify")
    assert (code, "the library is whole" in said) == (3, False), said
    code, said = run("verify", "--repair")
    assert (code, "the library is whole" in said) == (0, False), said
    assert run("verify")[0] == 0
    assert run("index", str(case / "videos"), "--progress", "none")[1].find("indexed") == -1
    assert moments(case / "library") == before


LEFT_OUT = {
    "fingerprints exchanged": ROWS["fingerprints exchanged"],
    "a fingerprint gone": "UPDATE videos SET fingerprint = NULL WHERE id = 1",
    "failed without a reason": "UPDATE videos SET state = 'failed' WHERE id = 1",
    "a moment gone": "DELETE FROM moments WHERE id = 1",
    "frames of another content": "UPDATE frame_sets SET fingerprint = 'another' WHERE id = 1",
    "a text for a frame set": "UPDATE moments SET frame_set_id = '[]' WHERE id = 1",
    "a blob for a file": "UPDATE frame_sets SET file = x'ff' WHERE id = 1",
    "a blob for a content": "UPDATE frame_sets SET fingerprint = x'ff' WHERE id = 1",
}
REFUSED = {
    "an empty encoder": "UPDATE encoders SET spec = '{}'",
    "a list for an encoder": "UPDATE encoders SET spec = '[]'",
    "another pooling": "UPDATE encoders SET spec = replace(spec, '\"frame_space\": true', '\"frame_space\": false')",
    "no encoder": "UPDATE generations SET encoder_id = 77",
    "a date that is none": "UPDATE generations SET created_at = 4611686018427387904",
    "a list for a base": "UPDATE generations SET base = '[]'",
}


@pytest.mark.parametrize("statement", [*LEFT_OUT.values(), *REFUSED.values()], ids=[*LEFT_OUT, *REFUSED])
def test_a_query_is_never_wrong_in_silence(
    statement: str, library: Path, vsearch: Vsearch, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(library, tmp_path, dirs_exist_ok=True)
    with sqlite3.connect(tmp_path / "library" / "catalogue.sqlite") as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(statement)
    connection.close()
    asked = vsearch("query", "a dog on grass")
    assert "unexpected" not in asked.stderr, asked.stderr
    assert "Traceback" not in asked.stderr, asked.stderr
    assert "vsearch verify --repair" in asked.stderr
    assert asked.returncode == 2 if statement in REFUSED.values() else asked.returncode in (0, 1)


def test_a_damaged_catalogue_comes_back_from_its_backup(
    library: Path, vsearch: Vsearch, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(library, tmp_path, dirs_exist_ok=True)
    (tmp_path / "library" / "catalogue.sqlite").write_bytes(b"\xff" * 8192)
    assert vsearch("verify").returncode == 3
    mended = vsearch("verify", "--repair")
    assert (mended.returncode, "restored from the backup" in mended.stdout) == (0, True), mended
    assert len(list((tmp_path / "library").glob("catalogue.damaged-*.sqlite"))) == 1
    assert vsearch("verify").returncode == 0
    again = vsearch("index", tmp_path / "videos", "--progress", "none")
    assert (again.returncode, "2 unchanged" in again.stderr) == (0, True), again


GONE = {
    "one in the middle": "id = 2",
    "the first": "id = (SELECT min(id) FROM moments)",
    "the last": "id = (SELECT max(id) FROM moments)",
    "all of a video": "frame_set_id = 2",
}


@pytest.fixture
def case(library: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(library, tmp_path, dirs_exist_ok=True)
    return tmp_path


def edit(case: Path, *statements: str, file: str = "catalogue.sqlite") -> None:
    with sqlite3.connect(case / "library" / file) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("which", GONE.values(), ids=GONE)
def test_index_makes_lost_moments_again(which: str, case: Path, vsearch: Vsearch) -> None:
    before = moments(case / "library")
    edit(case, f"DELETE FROM moments WHERE {which}")
    again = vsearch("index", case / "videos", "--progress", "none")
    assert (again.returncode, "2 unchanged" in again.stderr) == (0, True), again
    assert moments(case / "library") == before
    assert vsearch("verify").returncode == 0


@pytest.mark.parametrize("change", ["SET value = 'x'", "SET value = '999'", None])
def test_a_lost_pointer_is_not_called_an_empty_library(
    change: str | None, case: Path, vsearch: Vsearch
) -> None:
    edit(case, f"UPDATE meta {change} WHERE key = 'live_generation'" if change else
         "DELETE FROM meta WHERE key = 'live_generation'")  # fmt: skip
    asked = vsearch("query", "a dog on grass")
    assert (asked.returncode, "holds no index yet" in asked.stderr) == (2, False)
    assert "does not say which index answers: run `vsearch verify --repair`" in asked.stderr
    assert vsearch("verify", "--repair").returncode == 0
    assert vsearch("query", "a dog on grass").returncode in (0, 1)


@pytest.mark.parametrize("folder", [True, False])
def test_a_lost_catalogue_is_said_and_not_made_anew(folder: bool, case: Path, vsearch: Vsearch) -> None:
    (case / "library" / "catalogue.sqlite").unlink()
    if folder:
        (case / "library" / "catalogue.sqlite").mkdir()
    for order in (["query", "a dog"], ["ls"], ["status"], ["index", case / "videos", "--progress", "none"]):
        done = vsearch(*order)
        assert (done.returncode, "no library" in done.stderr) == (2, False), done
        assert "vsearch verify --repair" in done.stderr
    assert vsearch("verify").returncode == 3
    assert vsearch("verify", "--repair").returncode == 0
    again = vsearch("index", case / "videos", "--progress", "none")
    assert (again.returncode, "2 unchanged" in again.stderr) == (0, True), again


def test_frames_that_a_backup_lacks_are_taken_up_again(case: Path, vsearch: Vsearch) -> None:
    before = moments(case / "library")
    backup = "catalogue.backup.sqlite"
    edit(case, "PRAGMA foreign_keys = ON", "DELETE FROM videos WHERE id = 2",
         "DELETE FROM frame_sets WHERE fingerprint NOT IN (SELECT fingerprint FROM videos)", file=backup)  # fmt: skip
    (case / "library" / "catalogue.sqlite").write_bytes(b"\xff" * 8192)
    mended = vsearch("verify", "--repair")
    assert (mended.returncode, "taken up again" in mended.stdout) == (0, True), mended
    again = vsearch("index", case / "videos", "--progress", "none")
    assert (again.returncode, "1 moved" in again.stderr, "indexed" in again.stderr) == (0, True, False), again
    assert moments(case / "library") == before
    assert vsearch("verify").returncode == 0


def test_a_garbage_row_deletes_nothing_outside_the_library(case: Path, vsearch: Vsearch) -> None:
    names = (
        "../videos/1.mp4",
        "frames/../../videos/1.mp4",
        str(case / "videos" / "1.mp4"),
        "catalogue.sqlite",
    )
    edit(case, *(f"INSERT INTO garbage (file) VALUES ('{name}')" for name in names))
    assert vsearch("index", case / "videos", "--progress", "none").returncode == 0
    assert (case / "videos" / "1.mp4").exists()
    assert vsearch("verify").returncode == 0


def test_an_index_that_differs_from_its_table_is_made_again(case: Path, vsearch: Vsearch) -> None:
    from benchmarks.damages import an_index_lacks_a_row

    before = moments(case / "library")
    an_index_lacks_a_row(case)
    found = vsearch("verify")
    assert (found.returncode, "missing from index" in found.stdout) == (3, True), found
    mended = vsearch("verify", "--repair")
    assert (mended.returncode, "indexes were made again" in mended.stdout) == (0, True), mended
    assert not list((case / "library").glob("catalogue.damaged*"))
    assert vsearch("verify").returncode == 0
    assert moments(case / "library") == before
