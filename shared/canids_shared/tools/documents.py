"""Parts of documents that a command writes: the text between `<!-- NAME … -->` and `<!-- /NAME -->`."""

from pathlib import Path

from canids_shared.errors import CanidsError
from canids_shared.files import write_text


def insert(document: Path, mark: str, content: str) -> None:
    """Replace the text between `<!-- mark -->` and `<!-- /first word of mark -->`; the marks stay.

    Raises `CanidsError` naming the document if it lacks the marks.
    """
    text = document.read_text(encoding="utf-8")
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark.split(maxsplit=1)[0]} -->"
    before, opened, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise CanidsError(f"{document}: no marks '{begin}' and '{end}'")
    write_text(document, f"{before}{begin}\n{content.strip()}\n{end}{after}")
