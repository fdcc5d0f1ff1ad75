"""The hub's own client against a stand-in of the hub on this machine: from a branch's name to documents."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_stand_in import HubStandIn

CARD = "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/c4-train.*.json.gz\n"
CARD += "- config_name: de\n  data_files:\n  - split: train\n    path: de/c4-train.*.json.gz\n---\n# C4\n"
FIRST, SECOND = "c" * 40, "d" * 40
SCRIPT = """
import json, os, sys, urllib.request
from pathlib import Path
import datasets
from indelible.corpora import documents, provenance, recipe
from indelible.errors import UserError
from indelible.study.corpus_spec import CatalogueCorpus, HubCorpus

datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
cache = Path(sys.argv[1])

def read(spec):
    try:
        return [document.text for document in documents(spec, cache)]
    except UserError as error:
        return str(error)

c4 = CatalogueCorpus(name="c4")
told = {
    "recipe": recipe(c4, cache) == recipe(c4, cache),
    "main": read(c4),
    "provenance": provenance(c4, cache),
    "no config": read(HubCorpus(id="allenai/c4", revision="main")),
    "no set": read(HubCorpus(id="allenai/c5", revision="main")),
}
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/move").read()
told["moved"] = read(c4)
told["commit"] = read(CatalogueCorpus(name="c4", revision="%s"))
print(json.dumps(told))
"""


@pytest.fixture
def c4(tmp_path: Path) -> Path:
    for config in ("en", "de"):
        folder = tmp_path / "set" / config
        folder.mkdir(parents=True)
        for shard in range(2):
            rows = [{"text": f"{config} page {shard}-{i}", "timestamp": "2019", "url": "u"} for i in range(20)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"c4-train.{shard:05d}-of-00002.json.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "set" / "README.md").write_text(CARD)
    return tmp_path / "set"


def test_the_catalogues_c4_from_branch_to_documents(c4: Path, tmp_path: Path) -> None:
    with HubStandIn("allenai/c4", c4, commits=[FIRST, SECOND]) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT % SECOND, str(tmp_path / "cache")],
            env=environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        asked = list(hub.asked)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    pages = sorted(f"en page {shard}-{i}" for shard in range(2) for i in range(20))
    assert sorted(told["main"]) == pages
    assert told["main"] != pages, "shuffled"
    assert told["provenance"] == {"data_set": "allenai/c4", "commit": FIRST}
    assert (
        "data set allenai/c4, split train, revision main could not be opened: Config name is missing"
        in told["no config"]
    )
    assert "data set allenai/c5, split train, revision main could not be opened" in told["no set"]
    assert f"revision 'main' was commit {FIRST} and is {SECOND} now" in told["moved"]
    assert sorted(told["commit"]) == pages
    shards = [path for path in asked if path.endswith(".json.gz")]
    assert shards
    assert all(f"/resolve/{FIRST}/en/" in path or f"/resolve/{SECOND}/en/" in path for path in shards), "by commit only"
    assert asked[0] == "GET /api/datasets/allenai/c4/revision/main", "planning asks nothing of the hub"
