"""Check that every link between the project's Markdown files leads to a file and, with ``#…``, to one of its headings.

    python3 scripts/check_links.py [FOLDER]

Links to other hosts are left alone: nothing here needs a network. Exit status 1 if a link is broken.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

#: Folders that hold what others wrote, or nothing to read.
SKIPPED = {".venv", ".git", "build", "dist", "node_modules", "jobber-data"}

_FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+).+?\1", re.DOTALL)
#: ``[text](target "title")``, or ``[name]: target`` on a line of its own.
_LINK = re.compile(
    r"""\[ (?: [^\[\]] | \[ [^\]]* \] )* \] \( \s* <? ([^)\s>]+) >? [^)]* \)
      | ^[ ]{0,3} \[ [^\]]+ \] : [ ]* <? ([^\s>]+)""",
    re.MULTILINE | re.VERBOSE,
)
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def _blank(match: re.Match[str]) -> str:
    """Return as many lines as the match has, so that line numbers stay."""
    return "\n" * match[0].count("\n")


def anchors(text: str) -> set[str]:
    """Return the anchors of a file's headings, made as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub(_blank, text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        anchor, n = slug, 0
        while anchor in found:
            n += 1
            anchor = f"{slug}-{n}"
        found.add(anchor)
    return found


def broken(root: Path) -> Iterator[str]:
    """Yield a line for every link in the Markdown files below ``root`` that leads nowhere."""
    files = sorted(path for path in root.rglob("*.md") if not SKIPPED & set(path.relative_to(root).parts))
    for file in files:
        text = _CODE.sub(_blank, _FENCE.sub(_blank, file.read_text(encoding="utf-8")))
        for match in _LINK.finditer(text):
            link = match[1] or match[2]
            if _ELSEWHERE.match(link):
                continue
            path, _, anchor = link.partition("#")
            target = (file.parent / path).resolve() if path else file
            line = text.count("\n", 0, match.start()) + 1
            where = f"{file.relative_to(root)}:{line}: {link}"
            if not target.exists():
                yield f"{where}: there is no such file"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
                yield f"{where}: there is no such heading"


def main() -> int:
    """Run from the command line."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    problems = list(broken(root))
    for problem in problems:
        print(problem)
    print(f"{len(problems)} broken links" if problems else "all links lead somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
