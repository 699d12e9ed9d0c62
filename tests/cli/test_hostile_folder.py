"""Code of the working directory never runs, whatever is asked there and however the command is started."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests import verbs
from vsearch.cli import VERBS

NAMES = (
    "json",
    "numpy",
    "torch",
    "sitecustomize",
    "usercustomize",
    "typing",
    "pathlib",
    "av",
    "faiss",
    "PIL",
    "socket",
    "sqlite3",
    "open_clip",
    "sqlalchemy",
    "typer",
    "rich",
    "gradio",
    "fastapi",
    "uvicorn",
    "safetensors",
    "platformdirs",
    "pathspec",
    "decord",
    "subprocess",
    "contextlib",
    "importlib",
    "signal",
    "atexit",
    "hashlib",
    "struct",
    "random",
    "threading",
    "tempfile",
    "shutil",
    "csv",
    "datetime",
    "logging",
    "resource",
    "ctypes",
    "accelerate",
    "regex",
    "ftfy",
)
BY_NAME, BY_MODULE = [str(Path(sys.executable).with_name("vsearch"))], [sys.executable, "-m", "vsearch"]
QUICK = {"query", "similar", "clip", "localize"}


class Downloads:
    """A working directory whose modules each leave a mark when they are run."""

    def __init__(self, folder: Path, environment: dict[str, str], *, package: bool) -> None:
        self.folder, self.environment = folder, environment
        self._marks = folder.parent / f"{folder.name} ran"
        folder.mkdir()
        for name in NAMES:
            (folder / f"{name}.py").write_text(self._trap(name))
        if package:
            (folder / "vsearch").mkdir()
            for name in ("__init__", "__main__", "process"):
                (folder / "vsearch" / f"{name}.py").write_text(self._trap("vsearch"))
        while (
            True
        ):  # what Python itself runs here is not ours to mend; it may hide what Python would run next
            for plain in (["-c", "pass"], ["-m", "this"]):
                self._run([sys.executable, *plain])
            if not self.ran():
                break
            for name in self.ran():
                (folder / f"{name}.py").unlink()
            self._marks.unlink()

    def _trap(self, name: str) -> str:
        return f"with open({str(self._marks)!r}, 'a') as marks:\n    marks.write('{name}\\n')\n"

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def ran(self) -> set[str]:
        return set(self._marks.read_text().split()) if self._marks.exists() else set()

    def check(self, command: Sequence[str], code: int = 0) -> None:
        done = self._run(command)
        assert self.ran() == set(), command
        nothing = 1 if "query" in command else code
        assert done.returncode in (code, nothing), (command, done.stderr, done.stdout)


@pytest.fixture
def environment(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    drop = ("PYTHONPATH", "PYTHONSAFEPATH")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    runtime = tmp_path_factory.mktemp("h")  # short, for sockets
    return {
        **kept, "VSEARCH_LIBRARY": str(tmp_path / "place" / "library"), "OMP_NUM_THREADS": "1",
        "XDG_RUNTIME_DIR": str(runtime), "VSEARCH_HELPER": "0",
    }  # fmt: skip


@pytest.mark.slow
def test_every_verb(tmp_path: Path, environment: dict[str, str]) -> None:
    if not Path(BY_NAME[0]).exists():
        pytest.skip("the command is not installed beside this Python")
    folder = tmp_path / "place"
    verbs.make_files(folder)
    recipes = verbs.commands(folder, folder)
    recipes = {"index": recipes["index"], **recipes}  # there is no library yet
    assert set(VERBS) == {verb.partition(" ")[0] for verb in recipes} | set(verbs.SERVERS)  # all are tried
    search_path = {**environment, "PYTHONPATH": os.pathsep}
    named = Downloads(tmp_path / "named", environment, package=True)
    module = Downloads(
        tmp_path / "module", environment, package=False
    )  # `-m vsearch` asks Python for that name
    named_path = Downloads(tmp_path / "named path", search_path, package=False)
    module_path = Downloads(tmp_path / "module path", search_path, package=False)
    for verb, runs in recipes.items():
        for arguments in runs if verb == "adopt" else runs[:1]:
            module_path.check([*BY_MODULE, *arguments])
        if verb in QUICK:
            named.check([*BY_NAME, *runs[-1]])
        if verb == "status":
            module.check([*BY_MODULE, *runs[0]])
            named_path.check([*BY_NAME, *runs[0]])
    broken = folder / "videos" / "broken.mp4"
    broken.write_bytes(b"no video")
    os.utime(broken, (1, 1))
    module_path.check([*BY_MODULE, *recipes["index"][0]], 3)  # what the page can retry
    visit_the_page(named)
    ask_with_a_helper(module_path)


def visit_the_page(downloads: Downloads) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*BY_NAME, "web", "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=downloads.folder, env=downloads.environment, stderr=subprocess.DEVNULL
    )

    def get(path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=120) as answer:
            return answer.read()

    try:
        until(lambda: server.poll() is not None or answers(port))
        picture = io.BytesIO()
        Image.new("RGB", (80, 60), "red").save(picture, "PNG")
        look = json.loads(get("/api/look", picture.getvalue()))["look"]
        (found, *_) = json.loads(get(f"/api/search?look={look}"))["hits"]
        assert found
        video = next(v["id"] for v in json.loads(get("/api/videos"))["videos"] if v["state"] == "indexed")
        assert get(f"/still/{video}?t=1")[:2] == b"\xff\xd8"
        assert b"ftyp" in get(f"/clip/{video}?start=1&end=2")[:16]
        json.loads(get("/api/search?q=yet+another"))
        assert json.loads(get("/api/retry", b""))["job"]["name"] == "retry"
        until(lambda: not json.loads(get("/api/library"))["job"]["running"])
        assert json.loads(get("/api/library"))["job"]["error"] is None
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
    assert downloads.ran() == set()


def answers(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def ask_with_a_helper(downloads: Downloads) -> None:
    """A query leaves a helper behind, which loads the model; it is ended by its library's order to stay no longer."""
    from vsearch.retriever import helper

    environment = {**downloads.environment, "VSEARCH_HELPER": "1"}
    runtime = Path(environment["XDG_RUNTIME_DIR"]) / "vsearch-helper"
    done = subprocess.run(
        [*BY_MODULE, "query", "asked of a helper", "--device", "cpu"],
        cwd=downloads.folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    until(lambda: any(runtime.glob("*.sock")))
    (address,) = runtime.glob("*.sock")
    question = {"library": downloads.environment["VSEARCH_LIBRARY"], "text": "never before", "number": 1}
    pid = 0

    def answered() -> bool:
        nonlocal pid
        import struct

        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(60)
            line.connect(str(address))
            if hasattr(socket, "SO_PEERCRED"):
                pid = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            helper.send(line, helper.Question(**question).to_json().encode())
            return helper.receive(line, 1 << 20)[:1] in (b"+", b"-")

    try:
        until(answered)
    finally:
        if pid:
            os.kill(pid, signal.SIGTERM)
    assert downloads.ran() == set()


def until(done, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)
