"""A warning is a sentence with a code that never changes: people read the sentence, programs look for the code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

INPUT = "input"  # of every sentence that has no code of its own, such as a reader's about a file


class CodedWarning(str):
    """A sentence with its code, e.g. `CodedWarning("not-hu", "CT: it doesn't seem to be in HU ...")`.

    It is a text like any other where texts are joined, written as JSON or shown.
    """

    code: str

    def __new__(cls, code: str, sentence: str) -> CodedWarning:
        made = super().__new__(cls, sentence)
        made.code = code
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return self.code, str(self)


def code_of(sentence: str) -> str:
    """The code of a warning; `input` for a plain text."""
    return sentence.code if isinstance(sentence, CodedWarning) else INPUT


def without_repeats(sentences: Iterable[str]) -> list[str]:
    """The warnings in their order, each sentence once."""
    return list({str(sentence): sentence for sentence in reversed(list(sentences))}.values())[::-1]
