"""What is on disk: catalogue, frame vectors, vector index. Knows nothing of models, decoding or the CLI.

library/
  catalogue.sqlite        the truth
  frames/<xx>/<sha>.npy   frame vectors and times, named by content
  index/<token>.faiss     generations of the vector index, derived; with .rows, .ids and .gone where it is large
  thumbs/<xx>/<sha>.jpg   posters
  index.lock              held by the one writer
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsearch.faces import face

if TYPE_CHECKING:
    from vsearch.library.library import Library
    from vsearch.library.lock import WriterLock
    from vsearch.library.place import CATALOGUE, ENVIRONMENT, absolute, find_library
    from vsearch.library.plan import Job, Plan, Scan
    from vsearch.library.vocabularies import read_vocabulary, write_vocabulary

# fmt: off
__all__ = [
    "CATALOGUE", "ENVIRONMENT", "Job", "Library", "Plan", "Scan", "WriterLock", "absolute", "find_library",
    "read_vocabulary", "write_vocabulary",
]
__getattr__ = face(__name__, {
    "library": "Library",
    "lock": "WriterLock",
    "place": "CATALOGUE ENVIRONMENT absolute find_library",
    "plan": "Job Plan Scan",
    "vocabularies": "read_vocabulary write_vocabulary",
})
