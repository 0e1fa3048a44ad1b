"""Pages of the documentation that are made from the sources: a hook of MkDocs (`mkdocs.yml`, `make docs`).

The READMEs are pages themselves, at the places where they lie in the repository, so their links hold in both. Those of
modules get the options of the schema and the ports of the Snakefile; graphs of rules are drawn by Graphviz.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from canids_shared.contracts.config import load_schema, options_of
from canids_shared.errors import CanidsError
from canids_shared.tools.rulegraph import edges, rules

_PAGES = (
    "README.md",
    "modules/*/README.md",
    "modules/*/EXPERIMENTS.md",
    "shared/profiles/README.md",
    "examples/**/README.md",
)
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
_MERMAID = re.compile(
    r"<!-- rulegraph pipelines/(\w+)/Snakefile -->\n```mermaid\n.*?```\n<!-- /rulegraph -->", re.DOTALL
)
_COLOURS = ("#dbe9f6", "#e3f1dd", "#fbe8d0", "#eee0f3", "#f6dede", "#e4e4e4")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add READMEs, drawings, and the files of the repository that pages link to."""
    root = _root(config)
    sources = [path for pattern in _PAGES for path in sorted(root.glob(pattern))]
    for path in sources:
        files.append(File.generated(config, str(path.relative_to(root)), content=path.read_text(encoding="utf-8")))
    for pipeline in config.extra["rulegraphs"]:
        for name, drawing in drawings(root, pipeline).items():
            files.append(File.generated(config, f"graphs/{name}.svg", content=drawing))
    for path in sources:
        for target in _linked(path):
            uri = str(target.relative_to(root)) if target.is_relative_to(root) else ""
            if uri and target.is_file() and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, content=target.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the drawn graph for the Mermaid text, and the reference on the pages of modules."""
    markdown = _MERMAID.sub(lambda found: f"![Rule graph of {found[1]}](graphs/{found[1]}.svg)", markdown)
    module = _root(config) / page.file.src_uri
    if re.fullmatch(r"modules/\w+/README\.md", page.file.src_uri):
        markdown += "\n" + reference(module.parent)
    return markdown


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
    for key, sub in options_of(schema):
        default = f"`{json.dumps(sub['default'], ensure_ascii=False)}`" if "default" in sub else ""
        yield key, _cell(sub.get("description", "")), _cell(_values(sub)), _cell(default)


def drawings(root: Path, pipeline: str) -> dict[str, str]:
    """SVGs of a pipeline: every rule, boxed by its module; and the modules alone.

    Raises `PluginError` if the graph cannot be planned or Graphviz is not there.
    """
    snakefile = f"pipelines/{pipeline}/Snakefile"
    try:
        found = edges(snakefile, root)
        home = {rule: m.parent.name for m in sorted(root.glob("modules/*/Snakefile")) for rule in rules(str(m), root)}
    except CanidsError as error:
        raise PluginError(str(error)) from None
    names = sorted({name for edge in found for name in edge})
    modules = sorted({home.get(name, "") for name in names} - {""})
    lines = []
    for colour, module in zip(_COLOURS * 2, modules, strict=False):
        inside = " ".join(f'"{name}";' for name in names if home.get(name) == module)
        lines.append(f'subgraph "cluster_{module}" {{ label="{module}"; style=filled; color="{colour}"; {inside} }}')
    lines += [f'"{a}" -> "{b}";' for a, b in found]
    between = sorted({(home.get(a, a), home.get(b, b)) for a, b in found})
    return {
        pipeline: _dot(lines),
        f"{pipeline}-modules": _dot([f'"{a}" -> "{b}";' for a, b in between if a != b]),
    }


def _dot(lines: list[str]) -> str:
    style = 'rankdir=TB; fontname="sans-serif"; node [shape=box, style="rounded,filled", fillcolor=white, fontname="sans-serif"]; edge [color="#666666"];'
    try:
        done = subprocess.run(
            ["dot", "-Tsvg"],
            input=f"digraph {{ {style} {' '.join(lines)} }}",
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise PluginError("Graphviz is not installed, which draws the rule graphs: apt-get install graphviz") from None
    if done.returncode:
        raise PluginError(f"dot: {done.stderr.strip()}")
    return done.stdout


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _linked(page: Path) -> Iterator[Path]:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        yield (page.parent / link).resolve()


def _values(sub: dict[str, Any]) -> str:
    if "enum" in sub:
        return ", ".join(f"`{json.dumps(v)}`" for v in sub["enum"])
    kind = sub.get("type", "")
    limits = [f"{sign} {sub[key]}" for key, sign in _LIMITS if key in sub]
    return " ".join([", ".join(kind) if isinstance(kind, list) else str(kind), ", ".join(limits)]).strip()


_LIMITS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
