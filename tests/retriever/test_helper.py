"""The query helper as a real process on a real socket."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vsearch.cli import main
from vsearch.library import Library, Scan
from vsearch.library.catalogue import open_reader
from vsearch.models import Encoder, ZeroShotHead, load_backbone
from vsearch.records import FoundFile, MediaInfo, NewMoment
from vsearch.retriever import Answer, Question, Session, ask, helper, start
from vsearch.retriever.helper import address_of

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX") or os.name != "posix", reason="no Unix sockets here"
)

linux = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="looks into /proc")
NEW = "zwei Köche"  # a sentence that no library has cached
LONG = "a dog on grass and " * 15 + "a cat"  # more than the 77 tokens that CLIP reads
Start = Callable[..., "subprocess.Popen[bytes]"]
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Helpers on, with a run-time folder of the test's own (short: a socket's path must be)."""
    short = tmp_path_factory.mktemp("h")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    monkeypatch.setenv(helper.SWITCH, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return short / "vsearch-helper"


@pytest.fixture(scope="session")
def whole(tiny_model: Path) -> Encoder:
    return Encoder(load_backbone(str(tiny_model), "cpu"), ZeroShotHead())


@pytest.fixture
def make(tmp_path: Path, whole: Encoder) -> Callable[..., Path]:
    """Make or enlarge a library of videos whose frames show what their names say; without decoding."""

    def run(name: str, *sentences: str) -> Path:
        with Library.open(tmp_path / name, create=True) as library:
            index(library, tmp_path / f"of {name}", whole, sentences)
            return library.path

    return run


def index(library: Library, media: Path, encoder: Encoder, sentences: tuple[str, ...]) -> None:
    media.mkdir(exist_ok=True)
    for sentence in sentences:
        (media / f"{sentence}.mp4").write_text(sentence)
    files = [
        FoundFile(path, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(media.iterdir())
    ]
    spec, backbone = encoder.spec(), encoder.backbone.identity
    encoder_id = library.register_encoder(encoder.identity, backbone, encoder.head.identity, spec)
    library.apply_plan(
        library.plan(Scan((media,), tuple(files)), lambda path: path.read_text(), backbone, 2.0)
    )
    batches = []
    for file in (file for file in files if file.path.stem in sentences):
        content = file.path.read_text()
        vector = encoder.embed_texts([content])
        info = MediaInfo("mp4", "h264", 64, 64, 0, 8_000, 25.0)
        frames = library.frame_store.put(content, backbone, 2.0, vector.repeat(16, 0), np.arange(16) * 500)
        recorded = library.record_indexed(
            files=[file],
            fingerprint=content,
            media=info,
            covered_ms=8_000,
            frames=frames,
            encoder_id=encoder_id,
            moments=[NewMoment(0, 4_000, 0, 8), NewMoment(4_000, 8_000, 8, 16)],
        )
        batches.append((np.array(recorded.moment_ids, np.int64), vector.repeat(2, 0)))
    library.publish_update(encoder_id, batches)


@pytest.fixture
def started(folder: Path) -> Iterator[Start]:
    """Start helpers that do not outlive the test; waits until the first answers, unless told otherwise."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(library: Path, idle_s: float = 60, wait: bool = True) -> subprocess.Popen[bytes]:
        process = start(library, idle_s=idle_s)
        assert process is not None
        processes.append(process)
        if wait:
            until(lambda: ask(Question(str(library), "x", 1)).answer is not None)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()


def alone(question: Question) -> Answer:
    with Library.open(Path(question.library)) as library:
        return Session.of(library).answer(question)


def found(library: Path, text: str) -> list[str]:
    """Names of what the helper finds, best first."""
    given = ask(Question(str(library), text, 10)).answer
    assert given is not None
    return [Path(hit.path).stem for hit in given.hits]


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_it_answers_what_a_query_alone_answers(started: Start, make: Callable[..., Path]) -> None:
    library = make("library", "a dog", "a cat", "a boat")
    started(library)
    for options in (
        {"number": 1},
        {"threshold": 0.99},
        {"threshold": 2.0},
        {"text": NEW},
        {"within": "a dog.mp4"},
        {"within": "a dog.mp4", "threshold": 2.0},
        {"text": LONG},
    ):
        question = Question(**{"library": str(library), "text": "a dog", "number": 10} | options)
        helped = ask(question)
        assert helped.answer is not None
        assert helped.answer == alone(question)


def test_what_a_query_notes_is_noted(started: Start, make: Callable[..., Path], whole: Encoder) -> None:
    library = make("library", "a dog", "a cat")
    started(library)
    given = ask(Question(str(library), f"  {NEW} ", 10)).answer
    assert given is not None
    with Library.open(library) as opened:
        cached = opened.cached_text(opened.live_encoder().id, NEW)
        np.testing.assert_allclose(cached, whole.embed_texts([NEW])[0], rtol=0, atol=2e-6)
        noted = json.loads(opened.recall("last_hits") or "")
    assert noted == [[hit.path, hit.start_ms, hit.end_ms] for hit in given.hits]


def test_nothing_is_noted_for_a_caller_who_left(started: Start, make: Callable[..., Path]) -> None:
    library = make("library", "a dog")
    started(library)
    assert found(library, "a dog")
    message = Question(str(library), "a dog", 10, threshold=2.0).to_json().encode()
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as line:
        # Callers are answered one after the other: until `first` leaves, nobody is.
        first.connect(str(address_of("auto")))
        line.connect(str(address_of("auto")))
        line.sendall(struct.pack(">I", len(message)) + message)
        line.close()
    ask(Question("/nowhere", "x", 1))
    with open_reader(library) as opened:
        assert len(json.loads(opened.recall("last_hits"))) == 1


def test_what_is_indexed_meanwhile_is_found_and_what_is_forgotten_is_not(
    started: Start, make: Callable[..., Path]
) -> None:
    library = make("library", "a dog")
    started(library)
    assert found(library, "a cat") == ["a dog"]
    make("library", "a cat", "a boat")
    assert found(library, "a cat")[0] == "a cat"
    with Library.open(library) as opened:
        opened.forget([opened.find_video("a cat.mp4")])
    assert sorted(found(library, "a cat")) == ["a boat", "a dog"]


def test_a_library_deleted_moved_or_replaced_gives_no_old_answers(
    started: Start, make: Callable[..., Path], tmp_path: Path
) -> None:
    library = make("library", "a dog")
    started(library)
    assert found(library, "a dog") == ["a dog"]
    moved = library.rename(tmp_path / "moved")
    assert ask(Question(str(library), "a dog", 10)) == helper.Asked(None, True)
    assert found(moved, "a dog") == ["a dog"]
    make("library", "a boat")
    assert found(library, "a dog") == ["a boat"]


def test_one_helper_answers_for_several_libraries(started: Start, make: Callable[..., Path]) -> None:
    libraries = [make(f"library{i}", f"video {i}") for i in range(5)]
    started(libraries[0])
    for _ in range(2):
        for i, library in enumerate(libraries):
            assert found(library, NEW) == [f"video {i}"]


def test_a_damaged_index_is_left_to_the_query_to_tell(started: Start, make: Callable[..., Path]) -> None:
    library = make("library", "a dog")
    started(library)
    (file,) = (library / "index").glob("*.faiss")
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert ask(Question(str(library), "a dog", 10)) == helper.Asked(None, True)
    file.write_bytes(data)
    assert found(library, "a dog") == ["a dog"]


def test_beside_a_writer_it_answers_at_once_and_says_that_nothing_is_noted(
    started: Start, make: Callable[..., Path]
) -> None:
    library = make("library", "a dog")
    started(library)
    with contextlib.closing(sqlite3.connect(library / "catalogue.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = ask(Question(str(library), "a dog", 10))
        assert (asked.answer is not None, asked.running, asked.noted) == (True, True, False)
    assert found(library, "a dog") == ["a dog"]


def test_a_new_sentence_is_kept_though_another_process_wrote_when_it_was_asked(
    started: Start, make: Callable[..., Path]
) -> None:
    library = make("library", "a dog")
    started(library)
    with contextlib.closing(sqlite3.connect(library / "catalogue.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = ask(Question(str(library), NEW, 10))
        assert (asked.answer is not None, asked.noted) == (True, False)
        other.execute("COMMIT")  # within the time that a note waits
    with open_reader(library) as opened:
        until(lambda: opened.cached_text(opened.live_encoder().id, NEW) is not None)


def test_killed_or_stuck_in_the_middle_it_is_not_waited_for(
    started: Start, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = make("library", "a dog")
    process = started(library)
    process.send_signal(signal.SIGSTOP)
    question = Question(str(library), "a dog", 10)
    monkeypatch.setattr(helper, "PATIENCE_S", 0.2)
    assert ask(question) == helper.Asked(None, True)
    monkeypatch.setattr(helper, "PATIENCE_S", 60)
    threading.Timer(0.3, process.kill).start()
    assert ask(question) == helper.Asked(None, False)


def test_folder_and_socket_are_the_users_own(started: Start, make: Callable[..., Path], folder: Path) -> None:
    library = make("library", "a dog")
    started(library)
    address = address_of("auto")
    assert address is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    folder.chmod(0o755)  # whoever opens it to others has no helper
    assert address_of("auto") is None
    assert ask(Question(str(library), "x", 1)) == helper.Asked(None, False)


def test_it_ends_when_idle_and_leaves_no_socket(started: Start, make: Callable[..., Path]) -> None:
    process = started(make("library", "a dog"), idle_s=0.5)
    assert process.wait(timeout=60) == 0
    address = address_of("auto")
    assert address is not None
    assert not address.exists()


def test_after_a_kill_the_next_helper_takes_over(started: Start, make: Callable[..., Path]) -> None:
    library = make("library", "a dog")
    process = started(library)
    process.kill()
    process.wait()
    address = address_of("auto")
    assert address is not None
    assert address.exists()  # stale
    assert ask(Question(str(library), "x", 1)) == helper.Asked(None, False)
    started(library)
    assert found(library, "a dog") == ["a dog"]


def test_of_several_started_at_once_one_stays(started: Start, make: Callable[..., Path]) -> None:
    library = make("library", "a dog")
    processes = [started(library, wait=False) for _ in range(3)]
    until(lambda: ask(Question(str(library), "x", 1)).answer is not None)
    until(lambda: sum(process.poll() is None for process in processes) == 1)
    assert found(library, "a dog") == ["a dog"]


NONSENSE: list[bytes] = [
    b"",
    b"\x00",
    struct.pack(">I", 0xFFFFFFFF),
    struct.pack(">I", 4) + b"null",
    struct.pack(">I", 3) + b"[1]",
    struct.pack(">I", 2) + b"{}",
    struct.pack(">I", 5) + b"\xff\xfe\x00\x01\x02",
    struct.pack(">I", 60000) + b"[" * 60000,
    *(
        struct.pack(">I", len(text)) + text
        for text in (
            b'{"library": 1, "text": "x", "number": 1}',
            b'{"library": "/", "text": "x", "number": "1"}',
            b'{"library": "/", "text": "x", "number": 1, "other": 1}',
        )
    ),
]


def test_nonsense_is_hung_up_on_and_harms_nobody(started: Start, make: Callable[..., Path]) -> None:
    library = make("library", "a dog")
    started(library)
    for message in NONSENSE:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(30)
            line.connect(str(address_of("auto")))
            line.sendall(message)
            line.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert line.recv(1) == b""
    assert found(library, "a dog") == ["a dog"]


@pytest.mark.parametrize("reply", [b"", b"\x00\x00", b"[1]", b'{"hits": 1}', b"\xff", None])
def test_nonsense_from_the_other_end_is_no_answer(folder: Path, reply: bytes | None) -> None:
    address = address_of("auto")
    assert address is not None
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(address))
        door.listen()

        def serve() -> None:
            line, _ = door.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(b"\xff\xff\xff\xff" if reply is None else struct.pack(">I", len(reply)) + reply)

        thread = threading.Thread(target=serve)
        thread.start()
        assert ask(Question("/library", "x", 1)) == helper.Asked(None, False)
        thread.join()


def test_another_device_version_or_installation_has_another_address(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = address_of("auto")
    others = {address_of("cuda")}
    monkeypatch.setattr("vsearch.__version__", "99")
    others.add(address_of("auto"))
    monkeypatch.setattr(helper, "_installed", lambda: [1])
    others.add(address_of("auto"))
    assert len({first, *others} - {None}) == 4


@pytest.mark.parametrize(
    "module", ["vsearch/process.py", "retriever/actions/localize.py", "models/mini/__init__.py"]
)
def test_a_module_that_is_written_anew_changes_the_address(
    module: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "vsearch/__init__.py",
        "retriever/helper.py",
        *(f"{room}/a.py" for room in helper._ROOMS),
        module,
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    monkeypatch.setattr("vsearch.__file__", str(tmp_path / "vsearch" / "__init__.py"))
    monkeypatch.setattr(helper, "__file__", str(tmp_path / "retriever" / "helper.py"))
    first = address_of("auto")
    (tmp_path / "retriever" / "__pycache__").mkdir()
    assert address_of("auto") == first
    (tmp_path / module).write_text("newer")
    assert address_of("auto") != first


@pytest.mark.slow
def test_a_helper_of_other_weights_never_listens(
    started: Start, make: Callable[..., Path], folder: Path
) -> None:
    library = make("library", "a dog")
    with contextlib.closing(sqlite3.connect(library / "catalogue.sqlite")) as catalogue, catalogue:
        catalogue.execute("UPDATE encoders SET identity = identity || 'x'")
    assert started(library, wait=False).wait(timeout=60) == 0
    assert not list(folder.glob("*.sock"))


def test_it_can_be_switched_off(
    folder: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = make("library", "a dog")
    monkeypatch.setenv(helper.SWITCH, "0")
    assert start(library) is None
    assert ask(Question(str(library), "x", 1)) == helper.Asked(None, False)
    assert not folder.exists()


@linux
def test_ctrl_c_in_the_terminal_does_not_reach_it(started: Start, make: Callable[..., Path]) -> None:
    process = started(make("library", "a dog"))
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    for stream in (0, 1, 2):  # it holds no terminal
        assert not os.readlink(f"/proc/{process.pid}/fd/{stream}").startswith(("/dev/pts", "/dev/tty"))


# The command


@pytest.fixture
def vsearch(tmp_path: Path) -> Run:
    """The command itself, where the library of the test is found upward."""

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "vsearch", *arguments, "--library", str(tmp_path / "library")]
        return subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=120)

    return run


def test_the_command_prints_the_same_with_and_without(
    started: Start,
    make: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    library = make("library", "a dog", "a cat")
    started(library)
    monkeypatch.chdir(tmp_path)

    def printed(*arguments: str) -> tuple[object, bytes, bytes]:
        monkeypatch.setattr("sys.argv", ["vsearch", "query", *arguments, "--library", str(library)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsysbinary.readouterr()
        return end.value.code, out, err

    codes = set()
    for options in (
        ["a dog"],
        ["a dog", "--json"],
        ["a dog", "--jsonl", "-n", "1"],
        ["a dog", "--csv"],
        ["a dog", "-l"],
        ["a dog", "-0"],
        ["a dog", "--in", "of library/a cat.mp4"],
        ["a dog", "--threshold", "2"],
        [LONG, "--json"],
        [LONG, "--in", "a dog.mp4"],
        [" "],
        ["a dog", "--in", "no such video"],
    ):
        helped = printed(*options)
        assert helped == printed(*options, "--no-helper")
        codes.add(helped[0])
    assert codes == {0, 1, 2}


IMPORTED = """
import sys
from vsearch.cli import main
sys.argv[0] = "vsearch"
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, file=sys.stderr)
"""


def imported(library: Path, *arguments: str) -> set[str]:
    """What the command imports for a query that finds something."""
    command = [sys.executable, "-c", IMPORTED, "query", "a dog", "--library", str(library), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("\n") == 1, done.stderr
    return set(done.stderr.split())


def test_a_query_that_is_helped_imports_nothing_heavy(started: Start, make: Callable[..., Path]) -> None:
    library = make("library", "a dog")
    started(library)
    assert not imported(library) & {"numpy", "sqlalchemy", "sqlite3", "faiss", "torch", "rich"}


def test_a_repeated_query_needs_neither_torch_nor_sqlalchemy(
    make: Callable[..., Path], whole: Encoder
) -> None:
    library = make("library", "a dog")
    with Library.open(library) as opened:
        opened.cache_text(opened.live_encoder().id, "a dog", whole.embed_texts(["a dog"])[0])
    assert not imported(library, "--no-helper") & {"torch", "open_clip", "sqlalchemy"}


@pytest.mark.slow
@linux
def test_a_query_leaves_one_behind_that_answers_the_next(
    folder: Path, make: Callable[..., Path], vsearch: Run
) -> None:
    make("library", "a dog")
    vsearch("query", "without", "--no-helper")
    assert not folder.exists()
    done = vsearch("query", "one", "--jsonl")
    assert done.returncode in (0, 1), done.stderr
    until(lambda: bool(list(folder.glob("*.sock"))))
    (lock,) = folder.glob("*.lock")
    pid = holder(lock)
    try:
        again = vsearch("query", "another", "--jsonl")
        assert again.stdout.count(b"\n") == done.stdout.count(b"\n") == 1
        assert holder(lock) == pid
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_bench_times_every_way_and_leaves_no_helper(
    folder: Path, make: Callable[..., Path], vsearch: Run
) -> None:
    library = make("library", "a dog")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.queries", str(library), "--rounds", "1", "--json"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["ways"]) == {"usual", "cold", "warm", "cached"}
    for lock in folder.glob("*.lock"):
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises when somebody holds it


def holder(lock: Path) -> int:
    """The process that holds a lock (flock) on this file."""
    inode = str(lock.stat().st_ino)
    for row in Path("/proc/locks").read_text().splitlines():
        fields = row.split()
        if fields[1] == "FLOCK" and fields[5].split(":")[2] == inode:
            return int(fields[4])
    raise AssertionError("nobody holds the lock")
