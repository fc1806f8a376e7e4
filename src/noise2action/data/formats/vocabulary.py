"""The sentences that positions of a text stand for, stored beside the arrays as JSON."""

import json
from collections.abc import Mapping
from typing import Any, cast

from ...errors import DataError
from ..episodes import Episodes
from .source import Source

FILE = "sentences.json"


def encoded(episodes: Episodes) -> dict[str, bytes]:
    """Return the file by its name; nothing for episodes without texts."""
    said = {name: list(sentences) for name, sentences in episodes.sentences.items()}
    return {FILE: json.dumps(said, ensure_ascii=False).encode()} if said else {}


def read(source: Source) -> Mapping[str, tuple[str, ...]]:
    """Return the sentences by feature; none for a data set that does not say."""
    if FILE not in source.names(""):
        return {}
    where = f"{source.path}: {FILE}"
    try:
        body: Any = json.loads(source.read(FILE))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected JSON, got a damaged file ({error})") from error
    lists = list(cast(dict[str, Any], body).values()) if isinstance(body, dict) else [None]
    if not all(isinstance(said, list) and all(isinstance(s, str) for s in cast(list[Any], said)) for said in lists):
        raise DataError(f"{where}: expected lists of sentences by feature: write the data set again")
    return {name: tuple(said) for name, said in cast(dict[str, list[str]], body).items()}
