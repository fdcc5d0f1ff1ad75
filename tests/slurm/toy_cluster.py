"""A throw-away Slurm cluster of several nodes on this one machine, for tests.

    python tests/slurm/toy_cluster.py up      install Debian's packages if they are missing, start everything
    python tests/slurm/toy_cluster.py down    stop what `up` started

Each "node" is a slurmd with a name and a port of its own; all share this host, its files and its processors.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ.get("TOY_SLURM_HOME", "/tmp/indelible-toy-slurm"))
PACKAGES = ("slurm-wlm", "munge")
NODES, CPUS, GPUS = 2, 2, 2  # of each node; the GPUs are device files that Slurm hands out
CONTROL_PORT, NODE_PORT = 26817, 27000

CONFIG = """\
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge/socket,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=1
SlurmdTimeout=4
KillWait=5
FirstJobId={first_job}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
PartitionName=main Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=5
PartitionName=urgent Nodes=n[1-{nodes}] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class CannotStart(Exception):
    """Why there is no cluster here."""


def node_names() -> list[str]:
    """n1, n2, ..."""
    return [f"n{index}" for index in range(1, NODES + 1)]


def environment() -> dict[str, str]:
    """Variables with which Slurm's commands find this cluster."""
    return {**os.environ, "SLURM_CONF": str(HOME / "slurm.conf")}


def call(*command: str) -> str:
    """Runs one of Slurm's commands; its output."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def _pid(name: str) -> int | None:
    try:
        pid = int((HOME / f"{name}.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def _install() -> None:
    if all(shutil.which(program) for program in ("slurmctld", "slurmd", "munged")):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotStart("Slurm is not installed, and only root on Debian can install it")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (("update",), ("install", "-y", "--no-install-recommends", *PACKAGES)):
        command = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments)  # somebody else may be installing
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=500)
        if done.returncode != 0:
            raise CannotStart(f"apt-get {arguments[0]}: {done.stderr.strip()[-300:]}")


def _write_config() -> None:
    host = socket.gethostname().split(".")[0]
    fields = {"host": host, "home": HOME, "control_port": CONTROL_PORT, "nodes": NODES}
    gres = f"Gres=gpu:{GPUS}" if _make_gpus() else ""
    # job ids never start again from 1: an old job's files must not be taken for a new one's
    text = CONFIG.format(**fields, first_job=int(time.time()) % 60_000_000 + 1)
    for index, name in enumerate(node_names(), 1):
        text += f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={NODE_PORT + index} CPUs={CPUS} "
        text += f"{gres}\n"
    lines = text.splitlines()
    lines.sort(key=lambda line: line.startswith("PartitionName"))  # partitions come after the nodes they name
    (HOME / "slurm.conf").write_text("\n".join(lines) + "\n")


def _make_gpus() -> bool:
    """Device files that Slurm hands out as GPUs, equal to /dev/null; False where such files may not be made."""
    devices = HOME / "devices"
    devices.mkdir()
    try:
        for index in range(GPUS):
            os.mknod(devices / f"nvidia{index}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except OSError:
        return False
    gpus = f"Name=gpu File={devices}/nvidia[0-{GPUS - 1}] Flags=nvidia_gpu_env"
    (HOME / "gres.conf").write_text("".join(f"NodeName={name} {gpus}\n" for name in node_names()))
    return True


def has_gpus() -> bool:
    """Whether the nodes of the running cluster have GPUs to hand out."""
    return (HOME / "gres.conf").exists()


def start_node(name: str) -> None:
    """Starts a node's daemon."""
    (HOME / "spool" / name).mkdir(parents=True, exist_ok=True)
    call("slurmd", "-f", str(HOME / "slurm.conf"), "-N", name)


def _wait_for_nodes() -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        states = dict(line.split() for line in call("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines())
        if len(states) == NODES and all(state in ("idle", "mixed", "allocated") for state in states.values()):
            return
        for name, state in states.items():
            if state.startswith(("down", "drain")):
                subprocess.run(
                    ("scontrol", "update", f"nodename={name}", "state=resume"), env=environment(), capture_output=True
                )
        time.sleep(0.2)
    raise CannotStart(f"the nodes do not come up; see {HOME}/*.log")


def up() -> None:
    """Starts the cluster, once.

    Raises:
        CannotStart: the packages cannot be installed, or the daemons do not come up.
    """
    _install()
    if _pid("slurmctld") is None:
        shutil.rmtree(HOME, ignore_errors=True)
        for folder in ("munge", "state", "spool"):
            (HOME / folder).mkdir(parents=True)
        HOME.chmod(0o755)
        (HOME / "munge").chmod(0o711)
        key = HOME / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        _write_config()
    munge = HOME / "munge"
    try:
        if _pid("munged") is None:
            files = (f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={HOME}/munged.pid")
            call("munged", "--force", *files, f"--log-file={munge}/log", f"--seed-file={munge}/seed")
        if _pid("slurmctld") is None:
            call("slurmctld", "-f", str(HOME / "slurm.conf"))
        for name in node_names():
            if _pid(name) is None:
                start_node(name)
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotStart(f"{error}; {getattr(error, 'stderr', '')}") from error
    _wait_for_nodes()


def kill_node(name: str) -> None:
    """Ends a node as a power cut would: its daemon, its job steps and their processes, all by SIGKILL."""
    pid = _pid(name)
    children: dict[int, list[int]] = {}
    steps = []
    for line in subprocess.run(("ps", "-eo", "pid=,ppid=,args="), capture_output=True, text=True).stdout.splitlines():
        child, parent, arguments = line.split(None, 2)
        children.setdefault(int(parent), []).append(int(child))
        if arguments.startswith("slurmstepd:"):
            steps.append(int(child))
    jobs = set(call("squeue", "-h", "-w", name, "-o", "%A").split())
    mine = [step for step in steps if any(f"[{job}." in _arguments(step) for job in jobs)]
    doomed = [pid] if pid is not None else []
    while mine:
        process = mine.pop()
        doomed.append(process)
        mine += children.get(process, [])
    for process in doomed:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    (HOME / f"{name}.pid").unlink(missing_ok=True)


def _arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def down() -> None:
    """Stops what `up` started."""
    if _pid("slurmctld") is not None:
        subprocess.run(("scancel", "--quiet", "--user=root"), env=environment(), capture_output=True)
        time.sleep(1.0)
    for name in (*node_names(), "slurmctld", "munged"):
        pid = _pid(name)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + 5
            while _pid(name) is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            if _pid(name) is not None:
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    {"up": up, "down": down}[sys.argv[1]]()
