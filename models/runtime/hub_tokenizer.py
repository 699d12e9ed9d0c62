"""A Hugging Face tokenizer without transformers: its `tokenizer.json`, run by the `tokenizers` package alone."""

from __future__ import annotations

import html
import string
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError


def _plain(text: str) -> str:
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _canonical(text: str) -> str:
    return " ".join(_plain(text).replace("_", " ").translate(_NO_PUNCTUATION).lower().split())


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What open_clip does to a sentence first, by its names for it.
CLEANINGS: dict[str, Callable[[str], str]] = {
    "whitespace": _plain,
    "canonicalize": _canonical,
    "lower": lambda text: _plain(text).lower(),
}


class HubTokenizer:
    """Sentences to token numbers, all of one length: the file says which, and what stands at the end of shorter ones."""

    def __init__(self, content: str, cleaning: str = "whitespace", blanked: int | None = None) -> None:
        """`content`: of the `tokenizer.json`, with truncation and padding in it. `blanked`: a token that becomes 0.

        Raises ModelError where it cannot be read, or the package is not installed.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as fault:
            raise ModelError(
                "the package tokenizers is not installed here: pip install 'vsearch[hf]'"
            ) from fault
        try:
            self._tokenizer = Tokenizer.from_str(content)
        except Exception as fault:  # the package raises plain Exceptions
            raise ModelError("its tokenizer cannot be read") from fault
        self._clean, self._blanked = CLEANINGS[cleaning], blanked

    def rows(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """N sentences -> (N, L) token numbers."""
        found = self._tokenizer.encode_batch([self._clean(text) for text in texts])
        numbers = np.array([each.ids for each in found], np.int64)
        if self._blanked is not None:
            numbers[numbers == self._blanked] = 0
        return numbers
