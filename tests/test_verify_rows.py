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
