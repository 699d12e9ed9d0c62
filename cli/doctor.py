"""`vsearch doctor`: is this machine fit, and if not, what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import typer

from vsearch.cli.common import EXIT_ERROR, LibraryOption, human_size, printable, verb

PACKAGES = (
    "torch",
    "open_clip_torch",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "av",
    "decord",
    "torchcodec",
    "numpy",
    "sqlalchemy",
    "gradio",
)
OPTIONAL = {
    "faiss-gpu-cu12": "GPU index",
    "decord": "second decoder",
    "torchcodec": "decoding on a GPU",
    "gradio": "search page",
}


@verb
def doctor(library: LibraryOption = None) -> None:
    """Check Python, packages, devices, the built-in model and the library. Exit code 2 when something is broken."""
    from vsearch.errors import VsearchError
    from vsearch.library import Library, find_library

    faults: list[str] = []
    print(f"python    {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")
    for name in PACKAGES:
        try:
            print(f"{name:9} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            if name in OPTIONAL:
                print(f"{name:9} not installed ({OPTIONAL[name]})")
            elif name != "faiss-cpu" or not _installed("faiss-gpu-cu12"):
                faults.append(f"{name} is not installed: pip install {name}")
    for check in (_torch, _faiss, _decoders, _mini):
        try:
            print(check())
        except Exception as error:  # whatever a broken install raises is the finding
            faults.append(f"{check.__name__.strip('_')}: {type(error).__name__}: {error}")
    path = find_library(library)
    existing = path if path.exists() else next(p for p in path.parents if p.exists())
    print(f"disk      {human_size(shutil.disk_usage(existing).free)} free at {printable(str(existing))}")
    if Library.exists(path):
        try:
            with Library.open(path) as opened:
                print(f"library   {printable(str(path))}: {sum(opened.summary().videos.values())} videos")
        except VsearchError as error:
            faults.append(f"library: {error}")
    else:
        print(f"library   none at {printable(str(path))} yet")
    for fault in faults:
        print(printable(f"FAULT     {fault}"))
    if faults:
        raise typer.Exit(EXIT_ERROR)
    print("all is well")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _torch() -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ", ".join(torch.cuda.get_device_name(i) for i in range(count)) or "none"
    return f"device    CUDA: {cuda}; CPU threads: {torch.get_num_threads()}"


def _faiss() -> str:
    import faiss

    return f"faiss     {faiss.__version__}, GPUs: {faiss.get_num_gpus() if hasattr(faiss, 'get_num_gpus') else 0}"


def _decoders() -> str:
    import av

    names = [n for n in ("h264", "hevc", "vp9", "av1", "libdav1d") if n in av.codecs_available]
    return f"decode    PyAV with {', '.join(names)}"


def _mini() -> str:
    from vsearch.models import load_backbone

    backbone = load_backbone("mini", "cpu")
    return (
        f"mini      loads, {backbone.dim}-d, {Path(backbone.name).name} {backbone.identity.partition('@')[2]}"
    )
