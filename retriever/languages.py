"""What a sentence is written in, as far as its letters and its smallest words tell, and which models read that."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# How the names of models that read many languages begin or what they hold: open_clip's, and their text towers'.
MANY = ("xlm", "nllb", "mt5", "siglip2", "i18n", "multilingual", "mclip", "m-clip", "labse", "visheratin")
CHINESE = ("cn-clip", "chinese")
OWN_LETTERS = 0.5  # share of letters of another script that make a sentence one of it
SCRIPTS = {
    "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean", "CJK": "Chinese", "CYRILLIC": "Russian or another Cyrillic language",
    "ARABIC": "Arabic", "HEBREW": "Hebrew", "GREEK": "Greek", "DEVANAGARI": "Hindi", "BENGALI": "Bengali", "THAI": "Thai",
    "TAMIL": "Tamil", "TELUGU": "Telugu", "GEORGIAN": "Georgian", "ARMENIAN": "Armenian",
}  # fmt: skip
# Words that sentences of a language hardly do without, and those of others hardly have.
ENGLISH = "a an the of on in at is are with and to for from by near into over under his her their its two"
SMALL_WORDS = {
    "German": "der die das ein eine einen einem einer ist sind und mit auf im auf dem den des von zum zur nicht wie über",
    "French": "le la les un une des du de est sont et avec dans sur au aux qui en une l d",
    "Spanish": "el la los las un una unos de del es está y con en por que sobre al corriendo",
    "Italian": "il lo la gli un uno una di del della è e con su nel nella che sul sulla",
    "Portuguese": "o os as um uma de do da é está e com em no na que sobre ao",
    "Dutch": "de het een is zijn en met op van in het aan voor naar niet",
}


def unread_language(text: str, model: str) -> str | None:
    """The language of a sentence where the model does not read it, else None. Unsure counts as English."""
    found = language_of(text)
    name = model.lower()
    reads = found is None or any(part in name for part in MANY)
    reads = reads or (found == "Chinese" and any(part in name for part in CHINESE))
    return None if reads else found


def language_of(text: str) -> str | None:
    """Its language when that is surely not English, else None."""
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return None
    counts = Counter(_script(c) for c in letters)
    foreign = {script: n for script, n in counts.items() if script is not None}
    if sum(foreign.values()) > OWN_LETTERS * len(letters):
        if counts["Japanese"]:  # which uses Chinese letters, too
            return "Japanese"
        return max(foreign, key=lambda script: foreign[script])
    english_words = ENGLISH.split()
    words = re.findall(r"[^\W\d_]+", text.lower())
    english = sum(word in english_words for word in words)
    told = {name: len({*small.split()} & {*words} - {*english_words}) for name, small in SMALL_WORDS.items()}
    best = max(told, key=lambda name: told[name])
    return best if told[best] >= 2 and told[best] > english else None


def _script(letter: str) -> str | None:
    """The language that its script stands for; None for Latin and what is not listed."""
    name = unicodedata.name(letter, "")
    return next((language for script, language in SCRIPTS.items() if name.startswith(script)), None)
