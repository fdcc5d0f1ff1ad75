"""The recipes of docs/containers.md: their YAML is read, names fit each other, and the commands in them exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from indelible import __version__
from indelible.cli.main import build_app

TEXT = (Path(__file__).parents[2] / "docs" / "containers.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`([\w-]+\.yaml)`\n```yaml\n(.*?)```", TEXT, re.S))


def check_command(words: list[str]) -> str:
    """A command line of indelible, by the application itself: unknown options and missing arguments are errors."""
    assert words[0] == "indelible"
    command = typer.main.get_command(build_app()).commands[words[1]]
    command.make_context(words[1], words[2:], resilient_parsing=False)
    return words[1]


def test_a_command_that_does_not_exist_is_found():
    with pytest.raises(Exception, match="No such option"):
        check_command(["indelible", "work", "/study", "--pods", "3"])


def test_kubernetes():
    claim, prepare, work = (dict(one) for one in yaml.safe_load_all(FILES["study-on-kubernetes.yaml"]))
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert [job["kind"] for job in (prepare, work)] == ["Job", "Job"]
    assert [job["apiVersion"] for job in (prepare, work)] == ["batch/v1", "batch/v1"]
    names = []
    for job in (prepare, work):
        pod: dict[str, Any] = job["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never", "podFailurePolicy wants it"
        (container,) = pod["containers"]
        assert container["image"].endswith(f":{__version__}")
        assert all(isinstance(word, str) for word in container["command"]), "numbers are no arguments"
        names.append(check_command(container["command"]))
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        claims = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
        assert claims == [{"claimName": claim["metadata"]["name"]}]
        assert "/study" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert names == ["run", "work"]
    spec = work["spec"]
    assert "completions" not in spec, "a job of a work queue"
    policy = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert policy == [{"containerName": "work", "operator": "In", "values": [2]}]
    assert spec["template"]["spec"]["containers"][0]["name"] == "work"


def test_skypilot():
    task = yaml.safe_load(FILES["study-on-skypilot.yaml"])
    assert set(task) <= {"name", "num_nodes", "resources", "envs", "file_mounts", "setup", "run"}
    assert isinstance(task["num_nodes"], int)
    wheels = re.findall(r"indelible-([\d.]+)-py3", task["setup"] + str(task["file_mounts"]))
    assert set(wheels) == {__version__}
    lines = [line.strip() for line in task["run"].splitlines()]
    named = [line.replace('"$SKYPILOT_NUM_GPUS_PER_NODE"', "2") for line in lines if line.startswith("indelible ")]
    assert [check_command(shlex.split(line)) for line in named] == ["run", "work"]


def test_every_yaml_block_of_the_page_is_a_recipe():
    assert len(re.findall(r"```yaml\n", TEXT)) == len(FILES) == 2
