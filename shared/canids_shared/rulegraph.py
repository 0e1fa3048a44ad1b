"""Draw the rule graph of a workflow into a document: `python -m canids_shared.rulegraph README.md SNAKEFILE`.

The graph replaces what stands between the marks `<!-- rulegraph SNAKEFILE -->` and `<!-- /rulegraph -->`.
"""

import re
import subprocess
import sys
from pathlib import Path

from canids_shared.documents import insert
from canids_shared.errors import CanidsError


def drawn(snakefile: str) -> str:
    """The rule graph as Mermaid text, its edges sorted: Snakemake's own order and numbers differ from run to run."""
    command = [sys.executable, "-m", "snakemake", "-s", snakefile, "--rulegraph", "mermaid-js", "--forceall", "--quiet"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise CanidsError(f"{snakefile}: no rule graph: {answer.stderr.strip().splitlines()[-1]}")
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", answer.stdout))
    edges = sorted(f"    {names[a]} --> {names[b]}" for a, b in re.findall(r"(id\d+) --> (id\d+)", answer.stdout))
    return "\n".join(["flowchart TB", *edges])


def main() -> None:
    """Entry point."""
    document, snakefile = Path(sys.argv[1]), sys.argv[2]
    try:
        insert(document, f"rulegraph {snakefile}", f"```mermaid\n{drawn(snakefile)}\n```")
    except CanidsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
