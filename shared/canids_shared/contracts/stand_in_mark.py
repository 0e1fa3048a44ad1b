"""The mark of stand-ins: files that honour their contract and hold no results (`stand_in: true`, `canids_shared.jobs.stand_in_runner`).

| file | the mark |
|---|---|
| Parquet, safetensors | `"stand_in": true` in the JSON of the metadata key `canids` |
| JSON | `"stand_in": true` at the top |
| SVG, HTML, Markdown | first line `<!-- stand_in: true -->` |
| any other text (CSV, YAML) | first line `# stand_in: true` |

The reader of every contract refuses a marked file, and every rule refuses one among its inputs
(`canids_shared.jobs.entry_point`), unless it makes stand-ins itself.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from canids_shared.errors import CanidsError
from canids_shared.files import HEADER_KEY, canonical_json, write_json, write_text, written_whole

MARK = "stand_in"
_WORDS = f"{MARK}: true"
_WITH_HEADER = (".parquet", ".safetensors", ".json")
_COMMENT = dict.fromkeys((".svg", ".html", ".md"), f"<!-- {_WORDS} -->")
_allowed = ContextVar("allowed", default=False)


@contextmanager
def allow_stand_ins() -> Iterator[None]:
    """Allow marked files to be read within: for code that makes stand-ins itself."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def refuse(path: str | Path, header: Mapping[str, Any] | None = None) -> None:
    """Raise `CanidsError` naming the file if it is a stand-in and none may be read.

    Args:
        header: the file's JSON, where the caller has read it already.
    """
    if not _allowed.get() and (is_marked(path) if header is None else _has_mark(header)):
        raise CanidsError(
            f"{path}: a stand-in, which holds no results (made with stand_in: true); delete it and run the stage that makes "
            "it without stand_in, or set stand_in for this stage too"
        )


def is_marked(path: str | Path) -> bool:
    """Whether a file is a stand-in; False for one that is absent or damaged, which its reader refuses."""
    path = Path(path)
    try:
        if path.suffix in _WITH_HEADER:
            return _has_mark(_header(path))
        with open(path, "rb") as stream:
            return stream.readline(256).strip() == _line(path).encode()
    except (OSError, SafetensorError):
        return False


def mark(path: Path) -> None:
    """Put the mark into a finished file, which is small enough to be held in memory."""
    if path.suffix not in _WITH_HEADER:
        write_text(path, f"{_line(path)}\n{path.read_text(encoding='utf-8')}")
        return
    header = {**_header(path), MARK: True}
    match path.suffix:
        case ".parquet":
            import pyarrow.parquet as pq  # noqa: PLC0415 (as below)

            table = pq.read_table(path).replace_schema_metadata({HEADER_KEY: canonical_json(header)})
            with written_whole(path) as temporary:
                pq.write_table(table, temporary)
        case ".safetensors":
            arrays = load(path.read_bytes())
            with written_whole(path) as temporary:
                temporary.write_bytes(save(arrays, {HEADER_KEY: canonical_json(header)}))
        case _:
            write_json(path, header)


def _header(path: Path) -> dict[str, Any]:
    """The JSON object in which a file may hold the mark; empty where there is none.

    Raises `OSError` or `SafetensorError` if the file is absent or damaged.
    """
    text: str | bytes | None
    match path.suffix:
        case ".parquet":
            import pyarrow as pa  # noqa: PLC0415 (it takes a tenth of a second, and planning imports this module)
            import pyarrow.parquet as pq  # noqa: PLC0415

            try:
                text = (pq.read_metadata(path).metadata or {}).get(HEADER_KEY.encode())
            except pa.ArrowException as error:
                raise OSError(f"{path}: damaged") from error
        case ".safetensors":
            with safe_open(path, "numpy") as opened:
                text = (opened.metadata() or {}).get(HEADER_KEY)
        case _:
            text = path.read_bytes()
    try:
        content = json.loads(text or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _has_mark(header: Mapping[str, Any]) -> bool:
    return header.get(MARK) is True


def _line(path: Path) -> str:
    return _COMMENT.get(path.suffix, f"# {_WORDS}")
