"""Constraints that IFEval does not have, after IFBench (Pyatkin et al. 2025, arXiv 2507.02833): models are trained on IFEval's
twenty-five kinds and follow new ones much less.

Of IFBench's 58 kinds these are those that plain rules decide; each has IFBench's name and means what IFBench's sentence says. The prompts
are the suite's own, so that no published figure is reproduced. A response that is empty, or that a constraint does not bear on (no
question in it, where two statements a question were asked for), does not follow it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from alignbench_suite.tasks.files import documents, own
from alignbench_suite.tasks.helpfulness.ifeval import sentence_tokenizer

Check = Callable[..., bool]
_MARKS = string.punctuation + "“”‘’«»—–…"
_CONJUNCTIONS = {"and", "but", "for", "nor", "or", "so", "yet"}
_PAIRS = {")": "(", "]": "[", "}": "{"}


def words(text: str) -> list[str]:
    """In lower case, without the punctuation around them."""
    return [word for word in (part.strip(_MARKS) for part in text.lower().split()) if word]


def sentences(text: str) -> list[str]:
    return [s.strip() for s in sentence_tokenizer().tokenize(text) if s.strip()]


def _ends(text: str) -> Counter[str]:
    """How many sentences end in each mark."""
    return Counter(sentence.rstrip("\"'”’)*_ ")[-1:] for sentence in sentences(text))


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def word_count_range(text: str, min_words: int, max_words: int) -> bool:
    return min_words <= len(words(text)) <= max_words


def unique_word_count(text: str, N: int) -> bool:
    return len(set(words(text))) >= N


def conjunctions(text: str, small_n: int) -> bool:
    """Different ones."""
    return len(_CONJUNCTIONS.intersection(words(text))) >= small_n


def numbers(text: str, N: int) -> bool:
    """1,200 and 3.5 are one number each."""
    return len(re.findall(r"\d+(?:[.,]\d+)*", text)) == N


def punctuation(text: str) -> bool:
    rest = re.sub(r"\?!|!\?|‽", "", text, count=1)
    return rest != text and all(mark in rest for mark in ".,!?;:")


def keywords_multiple(text: str, **keywords: str) -> bool:
    counts = (1, 2, 3, 5, 7)
    found = (len(re.findall(rf"\b{re.escape(keywords[f'keyword{i}'])}\b", text, re.IGNORECASE)) for i in range(1, 6))
    return all(count == wanted for count, wanted in zip(found, counts, strict=True))


def sentence_type(text: str) -> bool:
    """Two statements a question."""
    ends = _ends(text)
    return ends["?"] > 0 and ends["."] == 2 * ends["?"]


def sentence_balance(text: str) -> bool:
    """As many statements as questions and exclamations."""
    ends = _ends(text)
    return ends["."] > 0 and ends["."] == ends["?"] == ends["!"]


def alphabet(text: str) -> bool:
    """Each word begins with the letter after the last one's."""
    letters = [word[0] for word in words(text)]
    known = all(letter in string.ascii_lowercase for letter in letters)
    return known and all((ord(b) - ord(a)) % 26 == 1 for a, b in pairwise(letters))


def vowel(text: str) -> bool:
    """One paragraph with three kinds of vowels at most."""
    return len(_lines(text)) == 1 and len(set(text.lower()).intersection("aeiou")) <= 3


def consonants(text: str) -> bool:
    """Each word has two consonants in a row."""
    return all(re.search(r"[b-df-hj-np-tv-z]{2}", word) for word in words(text))


def palindrome(text: str) -> bool:
    return sum(len(word) >= 5 and word == word[::-1] for word in words(text)) >= 10


def prime_lengths(text: str) -> bool:
    return all(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)) for n in map(len, words(text)))


def repeats(text: str, small_n: int) -> bool:
    return max(Counter(words(text)).values(), default=0) <= small_n


def last_first(text: str) -> bool:
    """The last word of each sentence is the first of the next. One sentence has no next."""
    split = [words(sentence) for sentence in sentences(text)]
    return len(split) > 1 and all(a and b and a[-1] == b[0] for a, b in pairwise(split))


def paragraph_last_first(text: str) -> bool:
    return all((split := words(line)) and len(split) > 1 and split[0] == split[-1] for line in _lines(text))


def no_consecutive(text: str) -> bool:
    return all(a[0] != b[0] for a, b in pairwise(words(text)))


def words_position(text: str, keyword: str) -> bool:
    """The second word and the second to last."""
    found = words(text)
    return len(found) > 2 and found[1] == found[-2] == keyword.lower()


def keyword(text: str, word: str, N: int) -> bool:
    found = sentences(text)
    return len(found) >= N and word.lower() in words(found[N - 1])


def increment(text: str, small_n: int) -> bool:
    lengths = [len(words(sentence)) for sentence in sentences(text)]
    return len(lengths) > 1 and all(b - a == small_n for a, b in pairwise(lengths))


def parentheses(text: str) -> bool:
    """Five levels of brackets, opened and closed in order."""
    stack: list[str] = []
    deepest = 0
    for sign in text:
        if sign in _PAIRS.values():
            stack.append(sign)
        elif sign in _PAIRS:
            if not stack or stack.pop() != _PAIRS[sign]:
                return False
            deepest = max(deepest, len(stack) + 1)
    return not stack and deepest >= 5


def newline(text: str) -> bool:
    return all(len(words(line)) == 1 for line in _lines(text))


def line_indent(text: str) -> bool:
    depths = [len(line) - len(line.lstrip(" ")) for line in _lines(text)]
    return len(depths) > 1 and all(b > a for a, b in pairwise(depths))


def options(text: str, options: str) -> bool:
    return text.strip(_MARKS + " \n").lower() in options.lower().split("/")


def bullets(text: str, sep: str) -> bool:
    """At least two items, each marked so, and nothing but items."""
    lines = [line.strip() for line in _lines(text)]
    return len(lines) > 1 and all(line.startswith(sep) and line != sep for line in lines)


def sub_bullets(text: str) -> bool:
    """Items marked *, each with at least one of its own marked -."""
    marks = [line.strip()[0] for line in _lines(text) if line.strip()[0] in "*-"]
    return "*" in marks and all(b == "-" for a, b in pairwise([*marks, "*"]) if a == "*") and marks[0] == "*"


def no_bullets_bullets(text: str) -> bool:
    """Two sentences or more that end in a full stop, then two items or more marked *."""
    lines = [line.strip() for line in _lines(text)]
    items = [line.startswith("*") for line in lines]
    if items != sorted(items) or sum(items) < 2:
        return False
    return _ends(" ".join(line for line, item in zip(lines, items, strict=True) if not item))["."] >= 2


def output_template(text: str) -> bool:
    return re.search(r"My Answer:\s*\S.*My Conclusion:\s*\S.*Future Outlook:\s*\S", text, re.DOTALL) is not None


def no_whitespace(text: str) -> bool:
    return not re.search(r"\s", text)


CHECKS: Mapping[str, Check] = {
    "count:word_count_range": word_count_range,
    "count:unique_word_count": unique_word_count,
    "count:conjunctions": conjunctions,
    "count:numbers": numbers,
    "count:punctuation": punctuation,
    "count:keywords_multiple": keywords_multiple,
    "ratio:sentence_type": sentence_type,
    "ratio:sentence_balance": sentence_balance,
    "words:alphabet": alphabet,
    "words:vowel": vowel,
    "words:consonants": consonants,
    "words:palindrome": palindrome,
    "words:prime_lengths": prime_lengths,
    "words:repeats": repeats,
    "words:last_first": last_first,
    "words:paragraph_last_first": paragraph_last_first,
    "words:no_consecutive": no_consecutive,
    "words:words_position": words_position,
    "sentence:keyword": keyword,
    "sentence:increment": increment,
    "format:parentheses": parentheses,
    "format:newline": newline,
    "format:line_indent": line_indent,
    "format:options": options,
    "format:list": bullets,
    "format:sub-bullets": sub_bullets,
    "format:no_bullets_bullets": no_bullets_bullets,
    "format:output_template": output_template,
    "format:no_whitespace": no_whitespace,
}


def follows(text: str, name: str, arguments: Mapping[str, Any]) -> bool:
    given = {key: value for key, value in arguments.items() if value is not None}  # `datasets` fills up with None
    return bool(words(text)) and CHECKS[name](text.strip("\n").rstrip(), **given)


def readings(text: str) -> Iterator[str]:
    """IFEval's eight: with and without its first line, its last line, and asterisks."""
    lines = text.split("\n")
    for part in (lines, lines[1:], lines[:-1], lines[1:-1]):
        whole = "\n".join(part).strip("\n")
        yield from (whole, whole.replace("*", ""))


def embedded(**_: object) -> dict[str, Any]:
    return documents({"cluster": row["id"], **row} for row in own("constraints"))


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    asked = list(zip(doc["instruction_id_list"], doc["kwargs"], strict=True))

    def all_followed(text: str) -> bool:
        return all(follows(text, name, arguments) for name, arguments in asked)

    loose = all(any(follows(text, *one) for text in readings(results[0])) for one in asked)
    return {"ifbench_style_strict": float(all_followed(results[0])), "ifbench_style_loose": float(loose)}
