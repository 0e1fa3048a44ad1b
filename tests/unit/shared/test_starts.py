"""What the start of a job costs: an entry point loads the heavy packages that its work needs, and no other.

A package that takes a tenth of a second or more to import, and that only some calls of an entry point need, is imported in the
function that needs it; the comment behind that import says why.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from snakemake.output_index import OutputIndex

from canids_shared.planning.stage import remember_producers

ROOT = Path(__file__).parents[3]
FOLDERS = [ROOT / "shared", *sorted(path.parent for path in ROOT.glob("modules/*/Snakefile"))]
FILES = {
    ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in FOLDERS
    for path in folder.rglob("*.py")
}
ENTRIES = sorted(n for n, p in FILES.items() if re.search(r"^if __name__ == ", p.read_text("utf-8"), re.MULTILINE))
HEAVY = {
    *("asammdf", "can", "dgl", "gymnasium", "jinja2", "matplotlib", "mlflow", "numba", "onnx", "onnxruntime", "optuna"),
    *("pandas", "scipy", "sklearn", "snakemake", "sqlalchemy", "stable_baselines3", "torch", "torch_geometric"),
}
NEEDED = {
    "canids_preprocess": {
        **{
            name: {"numba"}
            for name in ("draft", "enrol", "follow", "graphs", "ingest", "label", "profile", "simulated")
        },
        "stand_ins": {"numba"},  # names of features, which stand beside their kernels
    },
    "canids_train_gnn": {name: {"torch"} for name in ("export", "follow", "gat", "states", "vgae")},
    "canids_train_drl": {name: {"torch"} for name in ("decide", "dqn", "fit_baselines", "follow")},
    "canids_evaluate": {
        **{name: {"matplotlib"} for name in ("alarms", "summary")},
        **{name: {"matplotlib", "jinja2"} for name in ("leaderboard", "report")},
        "sweep": {"matplotlib"},
        "window_baselines": {"sklearn"},
    },
    "canids_shared": {"sweeps.next_round": {"pandas", "snakemake"}},  # planning's own, of a sweep
    "canids_track": {name: {"mlflow", "pandas", "sqlalchemy"} for name in ("ingest", "sync")},
}
"""Stage → entry point → the heavy packages that every call of it needs; those of another name need none."""


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when a module is imported: not the bodies of functions, nor what only type checkers read."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, field, []))


def imports(source: str) -> set[str]:
    """Every module that the import of this source may import."""
    names: set[str] = set()
    for node in statements(ast.parse(source).body):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def loaded(entry: str) -> set[str]:
    """Heavy packages that the import of an entry point loads, by way of this project's own modules."""
    waiting, seen, heavy = [entry], set(), set()
    while waiting:
        name = waiting.pop()
        if name.partition(".")[0] in HEAVY:
            heavy.add(name.partition(".")[0])
        elif name in FILES and name not in seen:
            seen.add(name)
            waiting += [name.rpartition(".")[0], *imports(FILES[name].read_text(encoding="utf-8"))]
    return heavy


def test_imports_in_functions_and_for_type_checkers_do_not_count() -> None:
    source = (
        "import a\nif TYPE_CHECKING:\n    import b\ntry:\n    from c import d\nexcept OSError:\n    pass\n"
        "def f():\n    import g\nclass H:\n    import i\n"
    )
    assert imports(source) == {"a", "c", "c.d", "i"}
    assert len(ENTRIES) > 30
    assert loaded("canids_train_gnn.gat") == {"torch"}


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_point_loads_what_it_needs(entry: str) -> None:
    stage, _, name = entry.partition(".")
    assert loaded(entry) == NEEDED.get(stage, {}).get(name, set())


def test_a_training_step_does_not_load_the_compiler() -> None:
    """`torch._dynamo` takes as long to import as the rest of torch, and the step of an optimiser of torch imports it."""
    program = """if True:
        import sys
        import torch
        from canids_shared.jobs.torch_state import EagerAdamW, moments, restore_moments

        def trained(kind, fused):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
            optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.1, fused=fused)
            for _ in range(3):
                loss = model(torch.randn(5, 8)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                restore_moments(optimizer, moments(optimizer))
            return torch.cat([p.detach().flatten() for p in model.parameters()])

        ours = [trained(EagerAdamW, fused) for fused in (False, True)]
        assert "torch._dynamo" not in sys.modules
        theirs = [trained(torch.optim.AdamW, fused) for fused in (False, True)]
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
        assert "torch._dynamo" in sys.modules, "torch has changed, and EagerAdamW is no longer needed"
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_snakemake_looks_for_the_producers_of_a_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    original = OutputIndex.match_producers
    monkeypatch.setattr(OutputIndex, "match_producers", original)  # put back afterwards
    monkeypatch.setattr(OutputIndex, "__init__", OutputIndex.__init__)
    remember_producers.__wrapped__()
    asked = []

    class Product(str):
        def constant_prefix(self) -> str:
            return self.partition("{")[0]

        def constant_suffix(self) -> str:
            return self.rpartition("}")[2]

        def match(self, path: str) -> bool:
            asked.append(path)
            return re.fullmatch(re.sub("{[a-z]+}", "[a-z]+", self), path) is not None

    class Rule:
        def __init__(self, *products: str) -> None:
            self.paths = [Product(path) for path in products]

        def products(self) -> list[Product]:
            return self.paths

        def is_producer(self, path: str) -> bool:
            return any(product.match(path) for product in self.paths)

    rules = [
        Rule("runs/{run}/model.txt", "runs/{run}/log.txt"),
        Rule("runs/gat_{run}/model.txt", "runs/all.txt"),
        Rule("{any}.txt"),
        Rule("results/{name}.txt", "results/{name}_log.txt", "readme.txt"),
    ]
    index = OutputIndex(rules)
    paths = ["runs/a/model.txt", "runs/gat_a/model.txt", "runs/a/log.txt", "runs/all.txt", "results/b.txt"]
    paths += ["results/b_log.txt", "readme.txt", "runs/a/b/model.txt", "runs/1/model.txt", "other"]
    found = {path: index.match_producers(path) for path in paths}
    assert [len(found[path]) for path in paths] == [1, 1, 1, 1, 1, 1, 2, 0, 0, 0]
    assert asked.count("runs/a/log.txt") == 1 + 1, "the product of that name, and the one that begins and ends so"
    count = len(asked)
    assert {path: index.match_producers(path) for path in paths} == found
    assert len(asked) == count
    assert {path: original(index, path) for path in paths} == found
    assert OutputIndex([]).match_producers("results/a.txt") == set(), "each index has its own"
