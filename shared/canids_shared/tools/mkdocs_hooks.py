"""Hook of MkDocs (`mkdocs.yml`, `make docs`): the READMEs as pages, those of modules with a reference of ports and options.

READMEs keep their place in the repository, so that their links hold in both. Options come from the module's schema, ports
from its Snakefile, measured speeds from `bench/results.json`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from canids_shared.contracts.config import load_schema, options_of

_PAGES = (
    "README.md",
    "modules/*/README.md",
    "modules/*/EXPERIMENTS.md",
    "shared/profiles/README.md",
    "bench/README.md",
    "examples/**/README.md",
)
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
_LIMITS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the READMEs, and the files of the repository to which they link."""
    root = _root(config)
    pages = [path for pattern in _PAGES for path in sorted(root.glob(pattern))]
    for path in pages:
        files.append(File.generated(config, str(path.relative_to(root)), content=path.read_text(encoding="utf-8")))
    links = {(path.parent / link).resolve() for path in pages for link in _LINK.findall(path.read_text("utf-8"))}
    for target in sorted(path for path in links if path.is_file() and path.is_relative_to(root)):
        uri = str(target.relative_to(root))
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=target.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add the reference to the page of a module, and what was measured to that of speed."""
    if re.fullmatch(r"modules/\w+/README\.md", page.file.src_uri):
        markdown += "\n" + reference((_root(config) / page.file.src_uri).parent)
    measured = _root(config) / "bench/results.json"
    if page.file.src_uri == "bench/README.md" and measured.exists():
        markdown += "\n" + speeds(json.loads(measured.read_text(encoding="utf-8")))
    return markdown


def speeds(figures: list[dict[str, Any]]) -> str:
    """What `make bench` measured, as Markdown: a table for each machine."""
    lines = []
    for machine in dict.fromkeys(row["machine"] for row in figures):
        lines += ["", f"## {machine}", "", "| figure | measured | peer, limit | note |", "|---|---|---|---|"]
        for row in (row for row in figures if row["machine"] == machine):
            peer = f"{row['ratio']:.2f} × {row['against']}" if row["ratio"] is not None else ""
            limit = next((f"{sign} {row[key]:,}" for key, sign in (("most", "≤"), ("least", "≥")) if key in row), "")
            held = ", ".join(part for part in (peer, limit) if part)
            lines.append(f"| `{row['name']}` | {row['value']:,.4g} {row['unit']} | {held} | {_cell(row['note'])} |")
    return "\n".join(lines) + "\n"


def reference(module: Path) -> str:
    """Ports and options of a module, as Markdown."""
    schema = load_schema(module / "config.schema.yaml", common=True)
    block = re.search(r"^pathvars:\n((?:    .*\n)+)", (module / "Snakefile").read_text(encoding="utf-8"), re.MULTILINE)
    ports = re.findall(r'(\w+)="([^"]+)"', block[1]) if block else []
    lines = ["## Pathvars", "", "| pathvar | by default |", "|---|---|", *(f"| `{a}` | `{b}` |" for a, b in ports)]
    lines += ["", "## Options", "", "| key | what | values | default |", "|---|---|---|---|"]
    lines += [f"| `{key}` | {what} | {values} | {default} |" for key, what, values, default in rows(schema)]
    return "\n".join(lines) + "\n"


def rows(schema: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Key, description, allowed values and default of every option."""
    for key, option in options_of(schema):
        default = f"`{json.dumps(option['default'], ensure_ascii=False)}`" if "default" in option else ""
        yield key, _cell(option.get("description", "")), _cell(_values(option)), _cell(default)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _values(option: dict[str, Any]) -> str:
    if "enum" in option:
        return ", ".join(f"`{json.dumps(value)}`" for value in option["enum"])
    kind = option.get("type", "")
    limits = [f"{sign} {option[key]}" for key, sign in _LIMITS if key in option]
    return " ".join([", ".join(kind) if isinstance(kind, list) else str(kind), ", ".join(limits)]).strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
