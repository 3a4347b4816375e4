"""The GraphQL queries of Dagster's pages, read from the installed pages themselves."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import dagster_webserver
from graphql import DefinitionNode, FragmentDefinitionNode, OperationDefinitionNode, parse, print_ast, visit
from graphql.language.visitor import Visitor

SCRIPTS = Path(dagster_webserver.__file__).parent / "webapp" / "build" / "_next" / "static" / "chunks"
STRING = re.compile(r'"(\\n\s*(?:query|fragment) (?:[^"\\]|\\.)*)"')
PLACEHOLDER = re.compile(r"^\s*\$\{[^}]*\}\s*$", re.MULTILINE)


@cache
def page_queries() -> dict[str, str]:
    """Name of each query -> its text with all fragments it uses."""
    operations: dict[str, OperationDefinitionNode] = {}
    fragments: dict[str, FragmentDefinitionNode] = {}
    for script in SCRIPTS.rglob("*.js"):
        for match in STRING.finditer(script.read_text(errors="replace")):
            for definition in definitions(match.group(1).encode().decode("unicode_escape")):
                if isinstance(definition, OperationDefinitionNode) and definition.name:
                    operations[definition.name.value] = definition
                elif isinstance(definition, FragmentDefinitionNode):
                    fragments[definition.name.value] = definition
    return {
        name: "\n".join(print_ast(node) for node in (operation, *used_fragments(operation, fragments)))
        for name, operation in operations.items()
    }


def definitions(text: str) -> tuple[DefinitionNode, ...]:
    try:
        return parse(text).definitions
    except Exception:
        return ()


def used_fragments(
    operation: OperationDefinitionNode, fragments: dict[str, FragmentDefinitionNode]
) -> list[FragmentDefinitionNode]:
    found: dict[str, FragmentDefinitionNode] = {}
    waiting: list[Any] = [operation]
    while waiting:
        for name in spread_names(waiting.pop()):
            if name not in found and name in fragments:
                found[name] = fragments[name]
                waiting.append(fragments[name])
    return list(found.values())


def spread_names(node: Any) -> list[str]:
    names: list[str] = []

    class Spreads(Visitor):
        def enter_fragment_spread(self, spread: Any, *_: Any) -> None:
            names.append(spread.name.value)

    visit(node, Spreads())
    return names
