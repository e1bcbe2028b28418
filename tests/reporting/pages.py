"""Reads pages back: their JSON, their figures and where these are in it, their plots."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path
from typing import Any

_VOID = {"meta", "link", "img", "br"}


class Page(html.parser.HTMLParser):
    """A page of `irv2 report`.

    Attributes:
      facts: the JSON that it holds.
      figures: (place in the JSON, value, what is shown) of every figure.
      sections: id -> text of a section.
      addresses: all that it refers to.
      tags: names of its elements.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.facts: dict[str, Any] = {}
        self.figures: list[tuple[str, str, str]] = []
        self.sections: dict[str, str] = {}
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._section = ""
        self.feed(self.text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.tags.add(tag)
        self.addresses += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "action", "data")
        ]
        if tag == "section":
            self._section = str(facts["id"])
            self.sections[self._section] = ""
        if tag not in _VOID:
            self._open.append((tag, facts))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"{opened} is closed by {tag}"
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        tag, facts = self._open[-1] if self._open else ("", {})
        if tag == "script":
            assert facts["type"] == "application/json"
            self.facts = json.loads(data)
        elif tag == "data":
            self.figures.append((str(facts["data-at"]), str(facts["value"]), data))
        if self._section:
            self.sections[self._section] += data

    def at(self, place: str) -> Any:
        """Returns what is at a place in the JSON."""
        value: Any = self.facts
        for part in place.split("/")[1:]:
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value

    def marks(self, place: str) -> list[tuple[float, float]]:
        """Where in a plot the marks of a figure, or of a row of figures, are."""
        pattern = rf'<g data-at="{re.escape(place)}">(.*?)\n *</g>\n *</g>'
        inner = re.findall(pattern, self.text, re.DOTALL)
        (found,) = inner
        return [
            (float(x), float(y))
            for x, y in re.findall(r'<use [^>]*?x="([\d.-]+)" y="([\d.-]+)"', found)
        ]

    def bar(self, place: str) -> float:
        """Where the bar of a figure ends."""
        pattern = rf'<g data-at="{re.escape(place)}">\s*<path d="([^"]*)"'
        (path,) = re.findall(pattern, self.text)
        return max(float(x) for x in re.findall(r"[ML] ([\d.-]+) ", path))
