"""Kinds of damage to a library on disk, for `faults.py` and the tests: each a name and what does it to a case.

A case is a folder with `library` and the `videos` that it is of; see `faults.sound_library`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Damage = Callable[[Path], Any]
VOCABULARY = "kept"


def damages(trained: bool) -> Iterator[tuple[str, Damage]]:
    """Of a plain library, or those that need one with a trained head adopted (slower to ask)."""
    files: dict[str, Callable[[Path], Path]] = {
        "frames": frame_file, "index": index_file, "poster": poster_file, "vocabulary": vocabulary_file,
        "catalogue": catalogue_file, "backup": backup_file,
    }  # fmt: skip
    if trained:
        files = {"former index": former_index_file, "head's weights": head_file("*.safetensors"), "head's card": head_file("*.json")}  # fmt: skip
    for kind, find in files.items():
        for how, change in WAYS.items():
            yield f"{kind}: {how}", lambda case, find=find, change=change: change(find(case))  # type: ignore[misc]
    if trained:
        yield "index: missing (trained)", lambda case: index_file(case).unlink()
        yield "frames: a bit flipped (trained)", lambda case: flip(frame_file(case))
        yield "heads: the whole folder", lambda case: shutil.rmtree(case / "library" / "heads")
        yield "heads: a file too many", _a_file_too_many
        yield "row: encoders gone (trained)", edit("DELETE FROM encoders")
        yield "row: another head's name", edit("UPDATE encoders SET head = 'x' WHERE id = 2")
        yield "row: the former head answers", edit("UPDATE generations SET encoder_id = 3 - encoder_id")
        yield "row: generations gone (trained)", edit("DELETE FROM generations")
        yield "row: moments a second later (trained)", edit(ROWS["moments a second later"])
        yield "row: moments of another encoder", edit("UPDATE moments SET encoder_id = 3 - encoder_id")
        return
    yield "frames: NaN in each record", nan_frames
    yield "frames: signs flipped", lambda case: _signs(frame_file(case))
    yield "frames: a time goes back", _time_back
    yield "frames: those of another video", _another_videos_frames
    yield "index: of an older generation", _older_index
    yield "catalogue: backup damaged, too", _catalogue_and_backup
    yield "catalogue: gone, and its backup", _no_catalogue_nor_backup
    yield "catalogue: lost, its backup lacks a video", _backup_lacks_a_video
    yield "catalogue: a page of moments", lambda case: _page_of(case, "moments")
    yield "catalogue: a page of frame_sets", lambda case: _page_of(case, "frame_sets")
    yield "catalogue: a page of videos", lambda case: _page_of(case, "videos")
    yield "catalogue: a page of meta", lambda case: _page_of(case, "meta")
    yield "catalogue: an index that lacks a row", an_index_lacks_a_row
    yield (
        "log: rubbish",
        lambda case: (case / "library" / "catalogue.sqlite-wal").write_bytes(os.urandom(9000)),
    )
    yield "lock: a folder", lambda case: _folder_at(case / "library" / "index.lock")
    yield "progress: a folder", lambda case: _folder_at(case / "library" / "index.progress")
    yield "progress: rubbish", lambda case: (case / "library" / "index.progress").write_bytes(os.urandom(900))
    for name in ("thumbs", "frames", "index", "vocabularies"):
        yield f"{name}: the whole folder", lambda case, name=name: shutil.rmtree(case / "library" / name)  # type: ignore[misc]
        yield (
            f"{name}: a file in its place",
            lambda case, name=name: _file_for_folder(case / "library" / name),
        )  # type: ignore[misc]
    yield "row: names of two videos exchanged", _names_exchanged
    for title, statement in ROWS.items():
        yield f"row: {title}", edit(statement)


ROWS = {
    "moments a second later": "UPDATE moments SET start_ms = start_ms + 1000, end_ms = end_ms + 1000",
    "a moment that ends at 27 h": "UPDATE moments SET end_ms = 97200000 WHERE id = 2",
    "a moment that begins at -5 s": "UPDATE moments SET start_ms = -5000 WHERE id = 1",
    "a moment that ends before it starts": "UPDATE moments SET end_ms = start_ms - 1 WHERE id = 2",
    "moments with no frame": "UPDATE moments SET first_frame = last_frame",
    "moments far behind the last frame": "UPDATE moments SET first_frame = 900, last_frame = 901",
    "moments of two videos exchanged": "UPDATE moments SET frame_set_id = "
    "CASE frame_set_id WHEN 3 THEN 4 WHEN 4 THEN 3 ELSE frame_set_id END",
    "a moment gone": "DELETE FROM moments WHERE id = 2",
    "the first moment gone": "DELETE FROM moments WHERE id = (SELECT min(id) FROM moments WHERE frame_set_id = 4)",
    "the last moment gone": "DELETE FROM moments WHERE id = (SELECT max(id) FROM moments WHERE frame_set_id = 3)",
    "moments of a video gone": "DELETE FROM moments WHERE frame_set_id = 2",
    "moments gone": "DELETE FROM moments",
    "a moment twice": "INSERT INTO moments (frame_set_id, encoder_id, start_ms, end_ms, first_frame, last_frame) "
    "SELECT frame_set_id, encoder_id, start_ms, end_ms, first_frame, last_frame FROM moments WHERE id = 2",
    "a moment of another video": "UPDATE moments SET frame_set_id = 4 WHERE id = 2",
    "a text for a moment's time": "UPDATE moments SET start_ms = 'soon' WHERE id = 1",
    "query vectors emptied": "UPDATE text_vectors SET vector = x''",
    "query vectors of odd length": "UPDATE text_vectors SET vector = substr(vector, 1, 101)",
    "query vectors NaN": "UPDATE text_vectors SET vector = CAST(x'0000c07f' || substr(vector, 5) AS BLOB)",
    "query vectors replaced": "UPDATE text_vectors SET vector = CAST(substr(vector, 801) || substr(vector, 1, 800) AS BLOB)",
    "live generation not a number": "UPDATE meta SET value = 'x' WHERE key = 'live_generation'",
    "live generation not there": "UPDATE meta SET value = '999' WHERE key = 'live_generation'",
    "a sampling rate that is none": "INSERT OR REPLACE INTO meta (key, value) VALUES ('fps', 'often')",
    "another sampling rate": "INSERT OR REPLACE INTO meta (key, value) VALUES ('fps', '7.0')",
    "last hits not JSON": "INSERT OR REPLACE INTO meta (key, value) VALUES ('note:last_hits', '{')",
    "meta gone": "DELETE FROM meta",
    "one sentence's vector for another": "UPDATE text_vectors SET vector = (SELECT t.vector FROM text_vectors t WHERE t.id <> text_vectors.id)",
    "live generation gone": "DELETE FROM meta WHERE key = 'live_generation'",
    "live generation not UTF-8": "UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE key = 'live_generation'",
    "schema not a number": "UPDATE meta SET value = 'x' WHERE key = 'schema'",
    "encoder spec not JSON": "UPDATE encoders SET spec = '{'",
    "encoder spec a list": "UPDATE encoders SET spec = '[]'",
    "encoder spec without a head": "UPDATE encoders SET spec = '{}'",
    "another backbone's name": "UPDATE encoders SET backbone = 'x'",
    "frame sets at another rate": "UPDATE frame_sets SET fps = 7.0 WHERE id = 1",
    "a frame set of keyframes": "UPDATE frame_sets SET fps = 0.0 WHERE id = 1",
    "encoder window changed": "UPDATE encoders SET spec = replace(spec, '8.0', '9.0')",
    "unknown states": "UPDATE videos SET state = 'unheard of'",
    "failed without a reason": "UPDATE videos SET state = 'failed' WHERE id = 1",
    "fingerprints exchanged": "UPDATE videos SET fingerprint = CASE id "
    "WHEN 1 THEN (SELECT fingerprint FROM videos WHERE id = 2) ELSE (SELECT fingerprint FROM videos WHERE id = 1) END "
    "WHERE id IN (1, 2)",
    "a fingerprint gone": "UPDATE videos SET fingerprint = NULL WHERE id = 1",
    "negative sizes": "UPDATE videos SET size = -1",
    "a duration of a day": "UPDATE videos SET duration_ms = 86400000 WHERE id = 1",
    "a name that is not UTF-8 in a text": "UPDATE videos SET container = CAST(x'ff' AS TEXT)",
    "a name that leaves its folder": "UPDATE videos SET rel_path = CAST('../../etc/passwd' AS BLOB) WHERE id = 1",
    "a video of no root": "UPDATE videos SET root_id = 99 WHERE id = 1",
    "the root renamed": "UPDATE roots SET path = CAST('nowhere' AS BLOB)",
    "a frame set of another content": "UPDATE frame_sets SET fingerprint = 'another' WHERE id = 1",
    "frame files exchanged": "UPDATE frame_sets SET file = CASE id WHEN 1 THEN "
    "(SELECT file FROM frame_sets WHERE id = 2) ELSE (SELECT file FROM frame_sets WHERE id = 1) END WHERE id IN (1, 2)",
    "frame counts negative": "UPDATE frame_sets SET count = -1",
    "frame file names not UTF-8": "UPDATE frame_sets SET file = CAST(x'ff' || file AS TEXT) WHERE id = 1",
    "a frame set of another backbone": "UPDATE frame_sets SET backbone = 'other' WHERE id = 1",
    "generation's base not JSON": "UPDATE generations SET base = '{'",
    "generation of another dimension": "UPDATE generations SET dim = 7",
    "generation's hash changed": "UPDATE generations SET sha256 = 'x'",
    "generation's numbers changed": "UPDATE generations SET id_check = '1:1:1'",
    "generation of no encoder": "UPDATE generations SET encoder_id = 77",
    "encoders gone": "DELETE FROM encoders",
    "a video gone": "DELETE FROM videos WHERE id = 2",
    "a video missing that is there": "UPDATE videos SET state = 'missing' WHERE id = 2",
    "a video partial that is whole": "UPDATE videos SET state = 'partial', reason = 'x' WHERE id = 2",
    "a frame set gone": "DELETE FROM frame_sets WHERE id = 2",
    "roots gone": "DELETE FROM roots",
    "garbage that is needed": "INSERT INTO garbage (file) SELECT 'frames/' || substr(file, 1, 2) || '/' || file || '.npy' FROM frame_sets",
    "garbage that leaves its folder": "INSERT INTO garbage (file) VALUES ('../videos/red.mp4')",
    "videos gone": "DELETE FROM videos",
    "frame sets gone": "DELETE FROM frame_sets",
    "generations gone": "DELETE FROM generations",
}


def frame_file(case: Path) -> Path:
    """Of the longest video."""
    return max((case / "library" / "frames").glob("??/*.npy"), key=lambda path: path.stat().st_size)


def index_file(case: Path) -> Path:
    """That answers."""
    return max((case / "library" / "index").glob("*.faiss"), key=lambda path: path.stat().st_mtime_ns)


def former_index_file(case: Path) -> Path:
    return min((case / "library" / "index").glob("*.faiss"), key=lambda path: path.stat().st_mtime_ns)


def poster_file(case: Path) -> Path:
    return min((case / "library" / "thumbs").glob("??/*.jpg"))


def vocabulary_file(case: Path) -> Path:
    return case / "library" / "vocabularies" / f"{VOCABULARY}.safetensors"


def catalogue_file(case: Path) -> Path:
    return case / "library" / "catalogue.sqlite"


def backup_file(case: Path) -> Path:
    return case / "library" / "catalogue.backup.sqlite"


def head_file(pattern: str) -> Callable[[Path], Path]:
    return lambda case: next((case / "library" / "heads").glob(f"*/{pattern}"))


def edit(statement: str) -> Damage:
    def make(case: Path) -> None:
        with sqlite3.connect(case / "library" / "catalogue.sqlite") as connection:
            try:
                connection.execute(statement)
            except sqlite3.IntegrityError as error:  # a unique index in the way says nothing of damage
                raise SystemExit(f"{statement}: {error}") from error
        connection.close()

    return make


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 0x20
    path.write_bytes(data)


def _zeroed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 512] = bytes(min(512, len(data) - at))
    path.write_bytes(data)


def _folder_at(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "inside").write_text("something")


def _file_for_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("something")


WAYS: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5]),
    "a block zeroed": _zeroed,
    "a bit flipped": flip,
    "the head overwritten": lambda path: path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:]),
    "a folder in its place": _folder_at,
    "another file's content": lambda path: path.write_bytes(Path(__file__).read_bytes()),
}


def _names_exchanged(case: Path) -> None:
    for new, old in (("x", "red.mp4"), ("red.mp4", "grey.mp4"), ("grey.mp4", "x")):
        edit(f"UPDATE videos SET rel_path = CAST('{new}' AS BLOB) WHERE rel_path = CAST('{old}' AS BLOB)")(
            case
        )


def nan_frames(case: Path) -> None:
    records = np.load(frame_file(case), mmap_mode="r+")
    records["vector"][:, 3] = np.nan
    records.flush()


def _signs(path: Path) -> None:
    records = np.load(path, mmap_mode="r+")
    records["vector"][:, ::2] *= -1
    records.flush()


def _time_back(case: Path) -> None:
    records = np.load(frame_file(case), mmap_mode="r+")
    records["time_ms"][2] = 1 << 40
    records.flush()


def _another_videos_frames(case: Path) -> None:
    files = sorted((case / "library" / "frames").glob("??/*.npy"), key=lambda path: path.stat().st_size)
    shutil.copyfile(files[0], files[-1])


def _older_index(case: Path) -> None:
    """What a careless copy brings back."""
    shutil.copyfile(frame_file(case), index_file(case))


def _catalogue_and_backup(case: Path) -> None:
    for path in (case / "library").glob("catalogue*.sqlite"):
        _zeroed(path)


def _no_catalogue_nor_backup(case: Path) -> None:
    for path in (case / "library").glob("catalogue*.sqlite"):
        path.unlink()


def _backup_lacks_a_video(case: Path) -> None:
    """Its frames are of a run that was not backed up any more."""
    catalogue_file(case).write_bytes(b"\xff" * 9_000)
    with sqlite3.connect(backup_file(case)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM frame_sets WHERE id = 4")
        connection.execute("DELETE FROM videos WHERE fingerprint NOT IN (SELECT fingerprint FROM frame_sets)")
    connection.close()


def _a_file_too_many(case: Path) -> None:
    (head_file("*.json")(case).parent / "notes.txt").write_text("something")


def _page_of(case: Path, table: str) -> None:
    file = case / "library" / "catalogue.sqlite"
    with sqlite3.connect(file) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray(file.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 200] = b"\xff" * 200
    file.write_bytes(data)


def an_index_lacks_a_row(case: Path) -> None:
    file = case / "library" / "catalogue.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = sql || ' WHERE state = ''x''' WHERE name = 'ix_videos_state'"
        )
        connection.commit()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE videos SET state = 'partial' WHERE id = 1")  # the index is not told
        connection.commit()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, ' WHERE state = ''x''', '') WHERE name = 'ix_videos_state'"
        )
        connection.commit()
