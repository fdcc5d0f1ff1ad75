"""Tutorials as programs: the blocks of a page in order, run in a folder at tiny size.

A block with a file name in the line above it is written to that file. Of a `bash` block the lines that begin with
`indelible` are run, in this process. `python` blocks are run. Output (`text`) is not. What a command would train is
made tiny by settings that are added to it; `quickstart` is a study of the same form on generated text.
"""

import json
import os
import random
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tiny_engine import TINY, evaluated, evaluation_job_of, layered, plan_of, quiet, run_all
from typer.testing import CliRunner

from indelible.cli.main import build_app

FENCED = re.compile(r"(?:^`([^`\n]+)`\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
NOT_HERE = ("#", "make ", "git ", "pip ", "cd ")  # a line that a reader types and the tests do not
SIZES = ("precision", "seq_len", "tokenizer", "data", "model", "pretrain", "posttrain", "finetune", "evaluation")
STUDIED = {"plan": 1, "run": 1, "ledger": 1}  # commands that take a study, and where it stands
AUDIT = {"updates": 4, "batch": 4, "seq_len": 32, "windows": 4, "curve_points": 3, "seeds": [0, 1], "adapt": ["full"],
         "lr": [3e-3, 1e-2], "replay": [], "padding": False, "relearning": [1], "heldout_fraction": 0.1,
         "execution": TINY["execution"]}  # fmt: skip
CODES = {"audit": (0, 3, 4)}  # exit codes that are answers


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the file that the line above it names."""

    language: str
    text: str
    file: str


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page in order."""
    return [Block(language, body, file) for file, language, body in FENCED.findall(text)]


def cells_of(notebook: str) -> list[Block]:
    """The code cells of a notebook in order."""
    cells = json.loads(notebook)["cells"]
    return [Block("python", "".join(cell["source"]), "") for cell in cells if cell["cell_type"] == "code"]


def settings(values: dict[str, Any]) -> Iterator[str]:
    """A mapping, and the mappings in it field by field, as `--set` arguments."""
    for key, value in values.items():
        inner = {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
        for path, one in inner.items():
            yield from ("--set", f"{path}={json.dumps(one)}")


def sentences(seed: int, count: int = 120, words: int = 120) -> Iterator[str]:
    """Made-up documents; another seed is another language."""
    draw = random.Random(seed)
    follows = {word: draw.sample(range(64), 4) for word in range(64)}
    for _ in range(count):
        said = [draw.randrange(64)]
        while len(said) < words:
            said.append(draw.choice(follows[said[-1]]))
        yield " ".join(f"w{word:02d}" for word in said)


def write_files(folder: Path, names: tuple[str, ...] = ("web", "notes", "tasks")) -> None:
    """Three corpora of one's own, as JSON lines."""
    (folder / "data").mkdir()
    for seed, name in enumerate(names):
        lines = [json.dumps({"text": text}) for text in sentences(seed)]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def quickstart(**over: Any) -> dict[str, Any]:
    """The shipped study's form with fewer arms, on generated text."""
    names = {"pre": "general", "post": "music", "ft": "chemistry"}
    study = layered(TINY, {"name": "quickstart", "exposure": {"fraction": [0, 1.0]}, "seeds": [0, 1]})
    study["corpora"] = {names[role]: spec for role, spec in TINY["corpora"].items()}
    study["pipeline"] = names
    return layered(study, {"finetune": {"lr": ["0.3x", "1x"]}, **over})


def finish(out: Path) -> None:
    """Runs what a planned study still lacks, in this process: stage runs, and the evaluations of given checkpoints."""
    from indelible.train.evaluation import run_evaluations

    run_all(out)
    plan = plan_of(out)
    for checkpoint in plan.given:
        if len(evaluated(out, checkpoint)) < len(plan.evaluations.get(checkpoint, {})):
            job = evaluation_job_of(out, checkpoint, out / "evaluations" / checkpoint)
            run_evaluations(job, progress=quiet, guard=lambda: None)


def launch_here(out: Path, *_: Any, **__: Any) -> Any:
    """Stands for the launcher: no worker processes, which cost seconds each to start."""
    from indelible.scheduling.launcher import Outcome
    from indelible.scheduling.snapshot import snapshot_of

    finish(out)
    return Outcome(snapshot_of(out))


@dataclass
class Tutorial:
    """Runs pages in a folder, which must be the current one."""

    folder: Path
    commands: list[str] = field(default_factory=list)  # those that were run

    def __post_init__(self) -> None:
        """Puts the study `quickstart` beside the pages."""
        self.study = self.folder / "quickstart.yaml"
        self.study.write_text(yaml.safe_dump(quickstart()))

    def play(self, blocks: list[Block]) -> None:
        """Runs blocks in order."""
        scope: dict[str, Any] = {"__name__": "__main__"}
        for block in blocks:
            if block.file:
                path = self.folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.language == "python":
                program = block.text.replace('load_study("quickstart"', f"load_study({str(self.study)!r}")
                exec(compile(program, "tutorial", "exec"), scope)
            elif block.language == "bash":
                for line in block.text.replace("\\\n", " ").splitlines():
                    self.type(line)

    def type(self, line: str) -> None:
        """One line of a shell."""
        if line.startswith(NOT_HERE) or not line.strip():
            return
        words = shlex.split(line, comments=True)
        if words[0] == "python":
            self.play([Block("python", (self.folder / words[1]).read_text(), "")])
            return
        assert words[0] == "indelible", f"the tests can only run indelible: {line}"
        words = words[1:]
        code, text = run_command(self.made_tiny(words))
        assert code in CODES.get(words[0], (0,)), f"{line}\n{text}"
        self.commands.append(words[0])

    def made_tiny(self, words: list[str]) -> list[str]:
        """The same command over little data and a small model."""
        words = [str(self.study) if word == "quickstart" else os.path.expanduser(word) for word in words]
        if words[0] in STUDIED and words[STUDIED[words[0]]] != str(self.study):
            return [*words, *settings({key: TINY[key] for key in (*SIZES, "execution")})]
        if words[0] == "audit":
            known = quickstart()["corpora"] | {"instruction": TINY["corpora"]["pre"]}
            corpora = json.dumps({name: spec for name, spec in known.items() if name in words})
            tiny = [part for key, value in AUDIT.items() for part in ("--set", f"{key}={json.dumps(value)}")]
            return [*words, *tiny, "--set", f"corpora={corpora}"]
        return words


def run_command(words: list[str]) -> tuple[int, str]:
    """Exit code and output of a command in this process."""
    found = CliRunner().invoke(build_app(words[0]), words, catch_exceptions=False)
    return found.exit_code, found.output
