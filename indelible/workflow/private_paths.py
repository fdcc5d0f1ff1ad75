"""Takes the paths of one machine out of what is given to others."""

import re
from pathlib import PurePosixPath
from typing import Any

# A path of two parts or more inside other text; not what follows a word or a letter: 1/2/3, tokens/s, https://a/b/c
_INSIDE = re.compile(r"(?:file://)?(?<![\w.~/:])/(?:[\w.+@=,~-]+/)+[\w.+@=,~-]*[\w+@=~-]/?|file:///[^\s'\"]+")


class ShortPaths:
    """Replaces absolute paths by their last part, the same path always by the same name, another path by another."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by path
        self._taken: set[str] = set()

    def clean(self, value: Any) -> Any:
        """What JSON or YAML holds, with the paths in its texts replaced; keys stay."""
        if isinstance(value, dict):
            return {key: self.clean(child) for key, child in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(child) for child in value]
        return self.clean_text(value) if isinstance(value, str) else value

    def clean_text(self, text: str) -> str:
        """A text that is a path, or has paths in it."""
        if text.startswith("/") and "\n" not in text and len(text) > 1 and " /" not in text:
            return self._name(text)
        return _INSIDE.sub(lambda found: self._name(found.group()), text)

    def _name(self, path: str) -> str:
        bare = path.removeprefix("file://").rstrip("/")
        if bare not in self._names:
            last = PurePosixPath(bare).name or "root"
            name, number = last, 2
            while name in self._taken:
                name, number = f"{last}~{number}", number + 1
            self._taken.add(name)
            self._names[bare] = name
        return self._names[bare]
