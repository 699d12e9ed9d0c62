"""CLIP's byte-pair tokenizer without torch: the same numbers as open_clip's `SimpleTokenizer`, from its own word list.

A query needs a dozen tokens; importing open_clip for them costs seconds. Sennrich et al. 2016 (arXiv:1508.07909) for
byte-pair encoding, Radford et al. 2021 (CLIP) for the word list.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import itertools
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError

_MERGES = 49152 - 256 - 2  # of the list's lines, those that CLIP uses
_PATTERN = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Sentences to token numbers, start and end of text around them, cut to `context_length`."""

    def __init__(self, context_length: int = 77) -> None:
        import regex

        self.context_length = context_length
        self._pattern = regex.compile(_PATTERN, regex.IGNORECASE)
        self._ranks, self._numbers = _word_list()

    def rows(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """N sentences -> (N, L) token numbers, with zeros behind the end of text."""
        found = np.zeros((len(texts), self.context_length), np.int64)
        for row, text in zip(found, texts, strict=True):
            numbers = self(text)
            row[: len(numbers)] = numbers
        return found

    def __call__(self, text: str) -> list[int]:
        """One sentence -> its tokens, without padding; the last is always the end of text."""
        start, end = len(self._numbers), len(self._numbers) + 1
        tokens = [start, *self.encode(text), end]
        return tokens if len(tokens) <= self.context_length else [*tokens[: self.context_length - 1], end]

    def encode(self, text: str) -> list[int]:
        """The tokens of the words alone."""
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        found: list[int] = []
        for word in self._pattern.findall(" ".join(text.split()).lower()):
            if word in ("<start_of_text>", "<end_of_text>"):
                found.append(len(self._numbers) + (word == "<end_of_text>"))
            else:
                found += [self._numbers[part] for part in self._merge(word)]
        return found

    def _merge(self, word: str) -> list[str]:
        """A word as its longest known parts: always the pair that comes first in the list is joined."""
        letters = _byte_letters()
        parts = [letters[byte] for byte in word.encode("utf-8")]
        parts[-1] += "</w>"
        while len(parts) > 1:
            pairs = {f"{a} {b}" for a, b in itertools.pairwise(parts)}
            best = min(pairs, key=lambda pair: self._ranks.get(pair, _MERGES))
            if best not in self._ranks:
                break
            a, b = best.split(" ")
            joined, i = [], 0
            while i < len(parts):
                whole = parts[i : i + 2] == [a, b]
                joined.append(a + b if whole else parts[i])
                i += 2 if whole else 1
            parts = joined
        return parts


@lru_cache(maxsize=1)
def _byte_letters() -> list[str]:
    """A visible character for each byte: itself where it prints in Latin-1, else one from 256 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]


@lru_cache(maxsize=1)
def _word_list() -> tuple[dict[str, int], dict[str, int]]:
    """Pair ("a b") -> rank, and part -> token number: 256 bytes, the same at a word's end, then the merged pairs."""
    found = importlib.util.find_spec("open_clip")  # finds the folder, imports nothing
    if found is None or not found.submodule_search_locations:
        raise ModelError("open_clip is not installed; install vsearch again")
    path = Path(found.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
    except (OSError, EOFError, gzip.BadGzipFile) as fault:
        raise ModelError(
            f"cannot read open_clip's word list {path}: {fault}; install open_clip_torch again"
        ) from fault
    own_first = sorted(_byte_letters(), key=lambda letter: (ord(letter) > 255, ord(letter)))
    parts = [
        *own_first,
        *(letter + "</w>" for letter in own_first),
        *(line.replace(" ", "") for line in lines),
    ]
    return dict(zip(lines, range(_MERGES), strict=True)), dict(zip(parts, range(len(parts)), strict=True))
