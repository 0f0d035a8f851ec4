"""`charlm guide`: the manual, whose pages are the Markdown files of `charlm/guide`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from charlm.cli.output import on_terminal, render, write
from charlm.commands import command
from charlm.errors import UsageError

FOLDER = Path(__file__).parent.parent / "guide"
NOTEBOOK = FOLDER / "library.ipynb"
"""Notebook that shows the library."""
LINK = re.compile(r"\[([^\]]+)\]\((\w+)\.md\)")
"""A link from one page to another."""


def guide(
    topic: Annotated[
        str | None,
        typer.Argument(help="Page to show, or the beginning of its name."),
    ] = None,
) -> None:
    """List the pages of the manual, or show one.

    Example:  charlm guide cells
    """
    if topic is None:
        width = max(map(len, page_names()))
        lines = [f"{name:{width}}  {summary(name)}\n" for name in page_names()]
        write("".join(lines) + f"\nRead a page with: {command('guide', 'TOPIC')}\n")
        write(f"The library in a notebook: {NOTEBOOK}\n")
        return
    text = page_text(find_page(topic))
    if on_terminal():
        from rich.markdown import Markdown

        render(Markdown(LINK.sub(r"\1 (`charlm guide` \2)", text), hyperlinks=False))
    else:
        write(text)


def page_names() -> list[str]:
    """Return the names of all pages, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.md"))


def page_text(name: str) -> str:
    """Return the Markdown text of a page."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """Return what a page is about: its heading without the name before the colon."""
    return page_text(name).partition("\n")[0].partition(": ")[2]


def find_page(topic: str) -> str:
    """Return the page of that name, or the only one whose name starts with it or is another form.

    Two words are forms of each other if their first four letters agree, such as "scores" and
    "scoring". Raises UsageError, with the nearest page or the pages that mention the topic.
    """
    import difflib

    names, typed = page_names(), topic.strip().lower().removesuffix(".md")
    matches = [name for name in names if typed and name.startswith(typed)]
    matches = matches or [name for name in names if len(typed) > 4 and name[:4] == typed[:4]]
    if typed in names or len(matches) == 1:
        return typed if typed in names else matches[0]
    near = matches or difflib.get_close_matches(typed, names, n=1, cutoff=0.7)
    near = near or pages_about(typed)[:3]
    hint = f"Try: {', '.join(command('guide', name) for name in near)}" if near else ""
    raise UsageError(
        f"the guide has no page {topic!r}; expected one of {', '.join(names)}. "
        + (hint or f"List them with: {command('guide')}")
    )


def pages_about(word: str) -> list[str]:
    """Return the pages that mention a word, those that do so most often first."""
    counts = {name: page_text(name).lower().count(word) for name in page_names() if word}
    return sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
