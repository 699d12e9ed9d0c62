"""Kills and damage: is anything lost, is a wrong answer ever given in silence, does a verb end in a traceback?

    python benchmarks/faults.py                # both
    python benchmarks/faults.py --kills 40     # only kills
    python benchmarks/faults.py --damage       # only damage

Kills: `index`, `forget` and `verify --repair` run in a child that kills itself (SIGKILL) at its n-th fsync, rename, unlink
or commit. Then `verify` must find the library whole, and the next run must end with the answers of one that was never
disturbed. Damage: a copy of a sound library is damaged in one way, then it is asked, listed, indexed, verified, mended
and asked again. Videos are made for it; the built-in model answers. Exit code 1 on any silent wrong answer, unexpected
fault, or library that was not whole after a kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ["VSEARCH_HELPER"] = "0"
CACHED, NEW, NEWER = "a red screen with stripes", "a bright yellow picture", "something green and round"
COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 200), "grey": (120, 120, 120)}
Damage = Callable[[Path], None]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=None, metavar="N")
    parser.add_argument("--damage", action="store_true")
    parser.add_argument("--only", default="", help="damage whose name has this in it")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(int(args.child[0]), Path(args.child[1]), args.child[2:])
    both = args.kills is None and not args.damage and not args.only
    with tempfile.TemporaryDirectory() as scratch:
        base = sound_library(Path(scratch) / "base")
        faults = 0
        if args.kills or both:
            faults += kills(Path(scratch), base, args.kills or 40)
        if args.damage or args.only or both:
            faults += damage(Path(scratch), base, args.only)
    return 1 if faults else 0


# Running


@dataclass(frozen=True)
class Run:
    """What a verb did. `fault`: a traceback or what we call an unexpected fault."""

    code: int
    out: str
    err: str

    @property
    def fault(self) -> str | None:
        lines = (self.out + "\n" + self.err).splitlines()
        return next((line for line in lines if "unexpected fault" in line or "Traceback" in line), None)

    def hits(self) -> list[tuple[Any, ...]] | None:
        """Best moments: name, start, end and score; None when there is no answer."""
        if self.code not in (0, 1):
            return None
        found = json.loads(self.out)["hits"]
        return [(Path(h["path"]).name, h["start"], h["end"], round(h["score"], 3)) for h in found]


def run(case: Path, verb: str, *more: str) -> Run:
    """A verb in this process, on the library of a case."""
    from typer.testing import CliRunner

    from vsearch.cli import command_line
    from vsearch.library import reading

    reading._warned.clear()  # what is said once a process is said in each run
    app = command_line(verb, "models")  # a second verb, so that the first is named
    done = CliRunner().invoke(app, [verb, *more, "--library", str(case / "library")])
    err = done.stderr
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        err += f"\nTraceback: {done.exception!r}"
    return Run(done.exit_code, done.stdout, err)


def index(case: Path) -> Run:
    return run(case, "index", str(case / "videos"), "--progress", "none")


def ask(case: Path, text: str) -> Run:
    return run(case, "query", text, "--json", "-n", "20")


def sound_library(base: Path) -> Path:
    (base / "videos").mkdir(parents=True)
    for i, (name, colour) in enumerate(COLOURS.items()):
        make_video(base / "videos" / f"{name}.mp4", colour, seconds=6 + 7 * i, seed=i)
    for done in (index(base), ask(base, CACHED), run(base, "verify")):
        if done.code not in (0, 1):
            raise SystemExit(f"the sound library is none: {done}")
    with sqlite3.connect(base / "library" / "catalogue.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return base


def make_video(path: Path, colour: tuple[int, int, int], seconds: int, seed: int) -> None:
    """A colour with moving stripes, 5 frames a second."""
    import av

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for i in range(5 * seconds):
            image = np.full((120, 160, 3), colour, np.uint8)
            image[(4 * i) % 120 : (4 * i) % 120 + 12] = rng.integers(0, 255, 3)
            image[:, (3 * i * seed) % 160 : (3 * i * seed) % 160 + 9] = 255 - np.array(colour)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)


def copied(base: Path, to: Path) -> Path:
    if to.exists():
        shutil.rmtree(to)
    return Path(shutil.copytree(base, to))


# Kills


def child(nth: int, events: Path, arguments: list[str]) -> int:
    """Of the child: run a verb and die at its n-th durability event; 0: live, and write down how many there were."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    seen: list[str] = []

    def saw(kind: str) -> None:
        seen.append(kind)
        if len(seen) == nth:
            events.write_text(kind)
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            saw(name)
            return real(*args, **kwargs)

        setattr(os, name, call)

    for name in ("fsync", "replace", "unlink"):
        watched(name)

    @event.listens_for(Engine, "connect")
    def _trace(connection: Any, _record: Any) -> None:
        connection.set_trace_callback(lambda sql: saw("commit") if sql.startswith("COMMIT") else None)

    from vsearch.cli import main as command

    sys.argv = ["vsearch", *arguments]
    try:
        command()
    except SystemExit as end:
        if nth == 0:
            events.write_text(str(len(seen)))
        return int(end.code or 0)
    return 0


def kills(scratch: Path, base: Path, number: int) -> int:
    videos = str(base / "videos")
    work: list[tuple[str, Damage, list[str]]] = [
        ("index, new library", lambda case: shutil.rmtree(case / "library"), ["index", "{videos}", "--progress", "none"]),
        ("index, one more, one gone", _one_more_one_gone, ["index", "{videos}", "--progress", "none"]),
        ("forget", lambda case: None, ["forget", "red.mp4", "--yes"]),
        ("verify --repair", _much_damage, ["verify", "--repair"]),
    ]  # fmt: skip
    bad = done = 0
    print(f"{'killed':48} {'verify':10} {'afterwards'}")
    for i, (title, prepare, arguments) in enumerate(work):
        share = number * (i + 1) // len(work) - number * i // len(work)
        calm = copied(base, scratch / "calm")
        prepare(calm)
        total, _ = killed(calm, 0, arguments)
        if arguments[0] != "index":
            index(calm)
        expected = [ask(calm, text).hits() for text in (CACHED, NEW)]
        points = sorted({1 + round(j * (total - 1) / max(1, share - 1)) for j in range(share)})
        for point in points:
            case = copied(base, scratch / "case")
            prepare(case)
            _, kind = killed(case, point, arguments)
            done += 1
            problems = []
            checked = run(case, "verify")
            damaged_before = arguments[0] == "verify"
            if (
                checked.fault
                or (checked.code not in (0, 3) and "no library" not in checked.err.lower())
                or (checked.code == 3 and not damaged_before)
            ):
                problems.append(f"verify: {(checked.out + checked.err).strip()}")
            if damaged_before:
                again = run(case, "verify", "--repair")
                if again.code != 0:
                    problems.append(f"second repair: {(again.out + again.err).strip()}")
                whole = run(case, "verify")
                if whole.code != 0:
                    problems.append(f"after two repairs: {(whole.out + whole.err).strip()}")
            elif arguments[0] == "forget":
                run(case, "forget", "red.mp4", "--yes")
            last = index(case)
            if last.code != 0:
                problems.append(f"index: {(last.out + last.err).strip()}")
            if [ask(case, text).hits() for text in (CACHED, NEW)] != expected:
                problems.append("other answers")
            bad += bool(problems)
            state = "whole" if checked.code == 0 else f"exit {checked.code}"
            print(
                f"{title + f', {kind} {point} of {total}':48} {state:10} {'; '.join(problems) or 'the same answers'}",
                flush=True,
            )
    print(f"{done} kills, {bad} with faults ({videos and 'made videos'})")
    return bad


def killed(case: Path, nth: int, arguments: list[str]) -> tuple[int, str]:
    """Number of events of a run that was left alone, or the kind of event at which it was killed."""
    events = case / "events"
    filled = [each.format(videos=case / "videos") for each in arguments]
    command = [
        sys.executable,
        __file__,
        "--child",
        str(nth),
        str(events),
        *filled,
        "--library",
        str(case / "library"),
    ]
    subprocess.run(command, capture_output=True, check=False)
    said = events.read_text() if events.exists() else "none"
    events.unlink(missing_ok=True)
    return (int(said), "") if nth == 0 else (0, said)


def _one_more_one_gone(case: Path) -> None:
    make_video(case / "videos" / "yellow.mp4", (220, 210, 30), seconds=12, seed=9)
    (case / "videos" / "blue.mp4").unlink()


def _much_damage(case: Path) -> None:
    flip(frame_file(case))
    flip(index_file(case))
    edit("UPDATE moments SET start_ms = start_ms + 1000 WHERE id = (SELECT max(id) FROM moments)")(case)
    edit("UPDATE text_vectors SET vector = x'00'")(case)


# Damage


def damage(scratch: Path, base: Path, only: str) -> int:
    sound = copied(base, scratch / "sound")
    true = {text: ask(sound, text) for text in (CACHED, NEW, NEWER)}
    expected = {text: answer.hits() for text, answer in true.items()}
    usual = {line for answer in true.values() for line in answer.err.splitlines()}
    outcomes: Counter[str] = Counter()
    print(f"{'damage':52} {'asked':10} {'verify':8} {'repaired':9} {'in the end':12} outcome")
    for title, make in damages():
        if only not in title:
            continue
        case = copied(base, scratch / "case")
        make(case)
        first = {text: ask(case, text) for text in (CACHED, NEW)}
        rest = {
            "ls": run(case, "ls"), "status": run(case, "status"), "index": index(case), "verify": run(case, "verify"),
            "repair": run(case, "verify", "--repair"), "index again": index(case),
        }  # fmt: skip
        last = {text: ask(case, text) for text in (CACHED, NEW, NEWER)}
        runs = [*first.items(), *rest.items(), *last.items()]
        fault = next((f"{name}: {each.fault}" for name, each in runs if each.fault), None)
        silent = [
            f"{when}: {text}" for when, asked in (("first", first), ("last", last)) for text, answer in asked.items()
            if answer.hits() not in (None, expected[text]) and not set(answer.err.splitlines()) - usual
        ]  # fmt: skip
        right = all(answer.hits() == expected[text] for text, answer in last.items())
        if rest["verify"].code == 0 and not right:
            silent.append("verify: whole over wrong answers")
        if rest["repair"].code != 0 and "the library is whole" in rest["repair"].err:
            silent.append("whole after findings")
        outcome = "FAULT" if fault else "SILENT" if silent else "mended" if right else "honest"
        outcomes[outcome] += 1
        asked = "right" if all(a.hits() == expected[t] for t, a in first.items()) else (
            "refused" if any(a.hits() is None for a in first.values()) else "told")  # fmt: skip
        print(
            f"{title:52} {asked:10} {rest['verify'].code:<8} {rest['repair'].code:<9} "
            f"{'right' if right else 'different':12} {outcome}", flush=True,
        )  # fmt: skip
        for line in [*silent, *([fault] if fault else [])]:
            print(f"    {line}")
        if outcome in ("honest", "SILENT", "FAULT"):
            said = (rest["verify"].out + rest["verify"].err).strip().replace("\n", " | ")
            print(f"    verify said: {said[:300]}")
            said = (rest["repair"].out + rest["repair"].err).strip().replace("\n", " | ")
            print(f"    repair said: {said[:300]}")
            print(f"    index said: {rest['index again'].err.strip()[:200]}", flush=True)
    print(", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())))
    return outcomes["FAULT"] + outcomes["SILENT"]


def damages() -> Iterator[tuple[str, Damage]]:
    files = {
        "frames": frame_file, "index": index_file, "poster": poster_file,
        "catalogue": lambda case: case / "library" / "catalogue.sqlite",
    }  # fmt: skip
    for kind, find in files.items():
        for how, change in WAYS.items():
            yield f"{kind}: {how}", lambda case, find=find, change=change: change(find(case))  # type: ignore[misc]
    yield "frames: NaN in each record", nan_frames
    yield "frames: signs flipped", lambda case: _signs(frame_file(case))
    yield "frames: a time goes back", _time_back
    yield "frames: those of another video", _another_videos_frames
    yield "index: of an older generation", _older_index
    yield "catalogue: backup damaged, too", _catalogue_and_backup
    yield "catalogue: a page of moments", lambda case: _page_of(case, "moments")
    yield "catalogue: a page of frame_sets", lambda case: _page_of(case, "frame_sets")
    yield "catalogue: an index that lacks a row", _index_lacks_a_row
    yield (
        "log: rubbish",
        lambda case: (case / "library" / "catalogue.sqlite-wal").write_bytes(os.urandom(9000)) and None,
    )
    yield "lock: a folder", _lock_is_a_folder
    yield "posters: the whole folder", lambda case: shutil.rmtree(case / "library" / "thumbs")
    yield "frames: the whole folder", lambda case: shutil.rmtree(case / "library" / "frames")
    yield "index: the whole folder", lambda case: shutil.rmtree(case / "library" / "index")
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
    "a text for a moment's time": "UPDATE moments SET start_ms = 'soon' WHERE id = 1",
    "query vectors emptied": "UPDATE text_vectors SET vector = x''",
    "query vectors of odd length": "UPDATE text_vectors SET vector = substr(vector, 1, 101)",
    "query vectors NaN": "UPDATE text_vectors SET vector = CAST(x'0000c07f' || substr(vector, 5) AS BLOB)",
    "query vectors replaced": "UPDATE text_vectors SET vector = CAST(substr(vector, 801) || substr(vector, 1, 800) AS BLOB)",
    "live generation not a number": "UPDATE meta SET value = 'x' WHERE key = 'live_generation'",
    "live generation not there": "UPDATE meta SET value = '999' WHERE key = 'live_generation'",
    "live generation gone": "DELETE FROM meta WHERE key = 'live_generation'",
    "live generation not UTF-8": "UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE key = 'live_generation'",
    "schema not a number": "UPDATE meta SET value = 'x' WHERE key = 'schema'",
    "encoder spec not JSON": "UPDATE encoders SET spec = '{'",
    "encoder spec a list": "UPDATE encoders SET spec = '[]'",
    "encoder spec without a head": "UPDATE encoders SET spec = '{}'",
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
    "videos gone": "DELETE FROM videos",
    "frame sets gone": "DELETE FROM frame_sets",
    "generations gone": "DELETE FROM generations",
}


def frame_file(case: Path) -> Path:
    """Of the longest video."""
    return max((case / "library" / "frames").glob("??/*.npy"), key=lambda path: path.stat().st_size)


def index_file(case: Path) -> Path:
    return max((case / "library" / "index").glob("*.faiss"), key=lambda path: path.stat().st_mtime_ns)


def poster_file(case: Path) -> Path:
    return min((case / "library" / "thumbs").glob("??/*.jpg"))


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


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("something")


WAYS: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5]),
    "a block zeroed": _zeroed,
    "a bit flipped": flip,
    "the head overwritten": lambda path: path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:]),
    "a folder in its place": _folder,
    "another file's content": lambda path: path.write_bytes(Path(__file__).read_bytes()),
}


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


def _page_of(case: Path, table: str) -> None:
    file = case / "library" / "catalogue.sqlite"
    with sqlite3.connect(file) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray(file.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 200] = b"\xff" * 200
    file.write_bytes(data)


def _index_lacks_a_row(case: Path) -> None:
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


def _lock_is_a_folder(case: Path) -> None:
    lock = case / "library" / "index.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()


if __name__ == "__main__":
    sys.exit(main())
