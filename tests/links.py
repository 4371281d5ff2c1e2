"""Follows every link in Markdown files and in the built book: the files must exist, and so must the headings that a link names.

Usage: python3 tests/links.py FOLDER_OF_THE_BUILT_BOOK
Links to other sites are not followed, because the tests need no network.
"""

import html.parser
import pathlib
import re
import subprocess
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEMPLATES = ["examples/evaluate.md"]  # their links are valid at the place of the finished page


class Page(html.parser.HTMLParser):
    """The links of a page and the names that others can link to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value and tag != "base":
                self.links.append(value)
            if name in ("id", "name") and value:
                self.names.add(value)


def heading_names(text):
    """The anchors that GitHub and mdBook give to a page's headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for heading in re.findall(r"^#+\s+(.*)$", text, flags=re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        yield re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def markdown_links(text):
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    return re.findall(r"\]\(\s*<?([^)\s>]+)", text)


def broken(links, file, names_of, built_at=None):
    """The faults in a page's links. `built_at` is the page's place in the book, next to pages that exist only there."""
    for link in links:
        parts = urllib.parse.urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = file if not parts.path else file.parent / urllib.parse.unquote(parts.path)
        if not target.exists() and built_at and (built_at.parent / urllib.parse.unquote(parts.path)).exists():
            continue
        if not target.exists():
            yield f"{file}: {link}: there is no such file"
        elif parts.fragment and target.is_file():
            names = names_of(target)
            if names is not None and urllib.parse.unquote(parts.fragment) not in names:
                yield f"{file}: {link}: the page has no such heading"


def names_in(target):
    if target.suffix == ".md":
        return set(heading_names(target.read_text()))
    if target.suffix == ".html":
        return Page(target.read_text()).names
    return None


def main(book):
    tracked = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    pages = [ROOT / name for name in tracked.splitlines() if name not in TEMPLATES]
    built = [page for page in pathlib.Path(book).rglob("*.html") if page.name not in ("print.html", "404.html", "toc.html")]
    faults, count = [], 0
    for page in pages:
        links = markdown_links(page.read_text())
        count += len(links)
        in_docs = page.is_relative_to(ROOT / "docs")
        built_at = pathlib.Path(book) / page.relative_to(ROOT / "docs") if in_docs else None
        faults += broken(links, page, names_in, built_at)
    for page in built:
        links = Page(page.read_text()).links
        count += len(links)
        faults += broken(links, page, names_in)
    for fault in sorted(set(faults)):
        print(fault, file=sys.stderr)
    print(f"{count} links in {len(pages)} Markdown files and {len(built)} pages of the book; {len(set(faults))} broken")
    if not built:
        sys.exit("the book has no page")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main(sys.argv[1])
