"""Draw the rule graph of a workflow into a document: `python -m canids_shared.tools.rulegraph README.md SNAKEFILE`.

The graph replaces what stands between the marks `<!-- rulegraph SNAKEFILE -->` and `<!-- /rulegraph -->`.
"""

import re
import subprocess
import sys
from pathlib import Path

from canids_shared.errors import CanidsError
from canids_shared.tools.documents import insert


def _snakemake(snakefile: str, folder: Path | None, *options: str) -> str:
    command = [sys.executable, "-m", "snakemake", "-s", snakefile, *options]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if answer.returncode:
        raise CanidsError(f"{snakefile}: no rule graph: {(answer.stderr.strip().splitlines() or ['?'])[-1]}")
    return answer.stdout


def edges(snakefile: str, folder: Path | None = None) -> list[tuple[str, str]]:
    """Pairs of rules of which the second reads what the first makes, sorted: Snakemake's own order differs from run to run.

    Paths are relative to `folder`, by default the working directory. Raises `CanidsError` if the workflow cannot be planned.
    """
    text = _snakemake(snakefile, folder, "--rulegraph", "mermaid-js", "--forceall", "--quiet")
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", text))
    return sorted((names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", text))


def rules(snakefile: str, folder: Path | None = None) -> list[str]:
    """Names of the rules that a Snakefile declares."""
    return _snakemake(snakefile, folder, "--list-rules").split()


def drawn(snakefile: str) -> str:
    """The rule graph as Mermaid text."""
    return "\n".join(["flowchart TB", *(f"    {a} --> {b}" for a, b in edges(snakefile))])


def main() -> None:
    """Entry point."""
    document, snakefile = Path(sys.argv[1]), sys.argv[2]
    try:
        insert(document, f"rulegraph {snakefile}", f"```mermaid\n{drawn(snakefile)}\n```")
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
