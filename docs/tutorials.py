"""Renders the notebooks into the built book: `python docs/tutorials.py FOLDER`. Needs nbconvert.

A notebook links to files beside it, which the book does not hold; those links go to the repository.
"""

import pathlib
import re
import sys

from nbconvert import HTMLExporter

REPOSITORY = "https://github.com/wavemesh/wavemesh/blob/main/"
ROOT = pathlib.Path(__file__).resolve().parent.parent


def to_repository(found):
    attribute, link = found.groups()
    target = (ROOT / "notebooks" / link).resolve()
    if target.suffix == ".ipynb":
        return f'{attribute}="{target.stem}.html"'
    return f'{attribute}="{REPOSITORY}{target.relative_to(ROOT)}"' if target.exists() else found.group()


folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
    page, _ = HTMLExporter().from_filename(notebook)
    page = re.sub(r'(href)="([^"#:]+)"', to_repository, page)
    (folder / f"{notebook.stem}.html").write_text(page)
