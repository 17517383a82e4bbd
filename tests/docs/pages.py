"""The papers of the repository, taken apart: what is code, what is prose, what is a heading."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}.*\n)(?:^(?: {4}.*)?\n)*", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """The text without its blocks of code."""
        return INDENTED.sub("\n", FENCE.sub("", self.text))

    @cached_property
    def anchors(self) -> set[str]:
        """What a link's `#...` may name, as GitHub makes it of headings."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", each.strip().lower()).replace(" ", "-") for each in headings}

    def examples(self, language: str) -> list[tuple[int, str]]:
        """Line and code of each fenced block of a language."""
        found = [each for each in FENCE.finditer(self.text) if each["language"] == language]
        return [(self.text.count("\n", 0, each.start()) + 2, each["code"]) for each in found]

    def command_lines(self) -> Iterator[str]:
        """Every line of a block without a language, continued lines as one."""
        blocks = [*(code for _, code in self.examples("")), *INDENTED.findall(FENCE.sub("", self.text))]
        for block in blocks:
            yield from (line.strip() for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip())

    def words_of_code(self) -> list[str]:
        """What stands between backticks in the prose."""
        return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", self.prose)]


PAGES = [
    Page(path)
    for where in ("", "docs", "model_weights", "model_weights/*")
    for path in sorted(ROOT.glob(f"{where}/*.md".lstrip("/")))
]
