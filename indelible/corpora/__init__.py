"""Where text comes from: the offline packages, local files, the hub, generated languages.

A corpus spec comes in; documents with their source and licence go out, and a recipe that says what decides them.
May import: study.
"""

from indelible.corpora.document import Document
from indelible.corpora.sources import default_cache_dir, documents, provenance, recipe

__all__ = ["Document", "default_cache_dir", "documents", "provenance", "recipe"]
