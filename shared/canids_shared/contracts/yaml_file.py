"""YAML that users write, read within bounds: a fault is one line that names the file, whatever the file holds."""

from pathlib import Path
from typing import Any

import yaml

from canids_shared.contracts.config import DEEPEST, MOST
from canids_shared.errors import CanidsError

_LARGEST = 1 << 23
"""Bytes of a file: a manifest of 40,000 captures."""


class BoundsError(yaml.YAMLError):
    """What YAML allows and this project does not, with its line."""


class BoundedLoader(yaml.SafeLoader):
    """Safe loader that refuses what YAML or memory forbids: a repeated key (PyYAML keeps the last one), a node within itself,
    deep nesting, and aliases that stand for more than `MOST` nodes together."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # nodes that a finished node stands for, by its `id`

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Compose a node, counting its depth and what it and its aliases stand for."""
        alias = self.check_event(yaml.AliasEvent)
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        before = self._nodes
        self._depth += 1
        self._nodes += 1
        if self._depth > DEEPEST:
            raise BoundsError(f"line {line}: nested more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        if alias and id(node) not in self._sizes:
            raise BoundsError(f"line {line}: refers to itself")
        if alias:
            self._nodes += self._sizes[id(node)]
        else:
            self._sizes[id(node)] = self._nodes - before
        if self._nodes > MOST:
            raise BoundsError(f"line {line}: more than {MOST} values, those that aliases repeat included")
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, whose keys may not repeat."""
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in first:
                    raise BoundsError(f"line {line}: key {key.value!r} repeats line {first[key.value]}")
                first[key.value] = line
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; whatever a conversion raises is a `BoundsError`."""
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception:  # `2024-13-45`, `!!int abc`: raises whatever the conversion leads to
            line, text = node.start_mark.line + 1, repr(node.value)[:40]
            raise BoundsError(f"line {line}: {text} cannot be read as {node.tag.rpartition(':')[2]}") from None


def load(path: Path) -> Any:
    """The content of a YAML file. Raises `CanidsError` naming file and line if it cannot be read, or not within bounds."""
    try:
        if path.stat().st_size > _LARGEST:
            raise CanidsError(f"{path}: larger than {_LARGEST >> 20} MiB; is this the right file?")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CanidsError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise CanidsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return yaml.load(text, BoundedLoader)
    except BoundsError as error:
        raise CanidsError(f"{path}, {error}") from None
    except yaml.YAMLError as error:
        raise CanidsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
