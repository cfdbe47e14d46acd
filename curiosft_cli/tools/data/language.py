"""Guess the language of a question: by its script, and for Latin script by its frequent short words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict

from curiosft_cli.stages.rephrase.judge.normalise import CJK

_BY_SCRIPT = {
    "cyrillic": "ru",
    "hangul": "ko",
    "arabic": "ar",
    "hebrew": "he",
    "devanagari": "hi",
    "thai": "th",
}
_SMALL_WORDS = {
    "en": "the of and to is in that what find for are if with be by how many let which each on from has at it "
    "was a an as do no not or one two can be he his her will en me number value evaluate compute solve prove",
    "de": "der die das und ist von wie viele ein eine den mit sei für auf nicht zu im des dem sich wird hat man "
    "zahl wert bestimme berechne finde löse",
    "fr": "le la les et est de des une un que pour dans quel quelle combien soit du par sur avec en au sont "
    "deux trouver calculer déterminer valeur nombre",
    "es": "el la los las y es de que un una para cuál cuántos en del por con sea se si al hallar como son dos "
    "encuentre halle calcule determine valor número",
    "pt": "o a os as e é de que um uma para qual quantos em do da por com seja se não no na são como dois "
    "encontre calcule determine valor número",
    "it": "il lo la gli le e è di che un una per quale quanti in del della con sia se non sono nel trovare due "
    "calcolare determinare valore numero trova",
    "nl": "de het een en is van dat wat hoe veel voor in met op zijn niet te als aan door bij die er naar",
    "pl": "i w z na jest że do ile jak się dla o liczba oraz przez nie jeśli są po ma być tym jaka",
    "tr": "ve bir bu ile kaç için olan ne kadar her sayısı olarak değeri toplamı göre de da en iki olduğuna",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in _SMALL_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_KANA = re.compile(r"[\u3040-\u30ff]")

UNKNOWN = "?"


def language(text: str, *, characters: int = 2000) -> str:
    """ISO 639-1 code, or "?" if there are too few words.

    Args:
        text: the question; its formulas are ignored.
        characters: number of characters to read, from the first on.
    """
    text = text[:characters]
    letters = "latin" if text.isascii() else script(text)
    if letters == "cjk":
        return "ja" if _KANA.search(text) else "zh"
    if letters != "latin":
        return _BY_SCRIPT.get(letters, UNKNOWN)
    votes: dict[str, float] = defaultdict(float)
    for word in set(_LETTERS.findall(_COMMAND.sub(" ", without_formulas(text)).lower())):
        languages = _LANGUAGES_OF.get(word, ())
        for one in languages:
            votes[one] += 1 / len(languages)
    best = sorted(votes.items(), key=lambda vote: -vote[1])[:2]
    if not best or (len(best) > 1 and best[0][1] == best[1][1]):
        return UNKNOWN
    return best[0][0]


def script(text: str) -> str:
    """The script of most letters, in words of more than two letters outside formulas; Han and kana are `cjk`."""
    found: Counter[str] = Counter()
    for word in re.findall(rf"[{CJK}]|[^\W\d_{CJK}]{{3,}}", without_formulas(text)):
        name = unicodedata.name(word[0], "none").partition(" ")[0].lower()
        found["cjk" if name in ("hiragana", "katakana") else name] += len(word)
    return next((name for name, _ in found.most_common(1)), "none")


def without_formulas(text: str) -> str:
    """The words of a text."""
    return re.sub(r"\$\$.*?\$\$|\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\[A-Za-z]+", " , ", text, flags=re.DOTALL)
