"""Finds the blocks of code in a page, and the commands in them.

A block is fenced, or indented by four spaces after an empty line. A fence names its language:
`python` is run, `text` is what a command printed, a formula or a layout. An indented block is of
commands. `<!-- not run: REASON -->` before a block says why it is not run.
"""

from __future__ import annotations

import dataclasses
import re
import shlex

_REASON = re.compile(r"<!-- not run: (.+) -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
      page: The page, relative to the repository.
      line: The number of its first line, from 1.
      language: Of a fence; `shell` for an indented block.
      text: The code.
      reason: Why it is not run, or None.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Returns the words of each command of a block of the shell."""
        lines = self.text.replace("\\\n", " ").splitlines()
        parts = [shlex.split(line, comments=True) for line in lines]
        return [command for words in parts for command in _split(words, "&&") if command]


def blocks_of(page: str, text: str) -> list[Block]:
    """Returns the blocks of a page, in its order."""
    lines, found, number, reason = text.splitlines(), [], 0, None
    while number < len(lines):
        line = lines[number]
        is_indented = line.startswith("    ") and (number == 0 or not lines[number - 1].strip())
        if line.startswith("```"):
            end = next(n for n in range(number + 1, len(lines)) if lines[n] == "```")
            code = lines[number + 1 : end]
            found.append(Block(page, number + 1, line[3:].strip(), "\n".join(code), reason))
            number, reason = end + 1, None
            continue
        if is_indented:
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            code = "\n".join(line[4:] for line in lines[number:end]).strip("\n")
            found.append(Block(page, number + 1, "shell", code, reason))
            number, reason = end, None
            continue
        if line.strip():
            mark = _REASON.fullmatch(line.strip())
            reason = mark[1] if mark else None
        number += 1
    return found


def _split(words: list[str], between: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == between:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts
