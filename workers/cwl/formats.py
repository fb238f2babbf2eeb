"""Whether a file's format is one that an input allows."""

from functools import lru_cache
from typing import Any

from catalog.errors import BadTemplate
from workers.cwl.source import path_of


def format_fits(actual: str, allowed: list[str], ontologies: tuple[str, ...]) -> bool:
    """Whether `actual` is one of `allowed`, or by an ontology equivalent to or a kind of one."""
    if actual in allowed:
        return True
    return bool(ontologies) and _is_kind_of(actual, tuple(allowed), ontologies)


@lru_cache(maxsize=1024)
def _is_kind_of(actual: str, allowed: tuple[str, ...], ontologies: tuple[str, ...]) -> bool:
    from cwl_utils.file_formats import formatSubclassOf  # rdflib is slow to import

    graph = _graph(ontologies)
    return any(formatSubclassOf(actual, one, graph, set()) for one in allowed)


@lru_cache(maxsize=4)
def _graph(ontologies: tuple[str, ...]) -> Any:
    from rdflib import Graph  # slow to import

    graph = Graph()
    for one in ontologies:
        path = path_of(one)
        if not path.is_file():
            raise BadTemplate(f"the ontology {one!r} of `$schemas` is not there", one)
        graph.parse(str(path), format="turtle" if path.suffix == ".ttl" else "xml")
    return graph
