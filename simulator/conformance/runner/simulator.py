"""The simulator, built and running."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

from . import CannotStart, network

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
START_S, STOP_S = 30, 20
_PORTS = {"mqtt": 8883, "hub-https": 443, "amqps": 5671, "stack": 0, "event-hubs": 0, "functions": 0, "control": 0}


def built():
    """The program that $SIMULATOR names, else the release build of this source."""
    if named := os.environ.get("SIMULATOR"):
        return pathlib.Path(named).resolve()
    program = ROOT / "target" / "release" / "simulator"
    if shutil.which("cargo"):
        build = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "simulator"]
        if subprocess.run(build, cwd=ROOT).returncode != 0:
            raise CannotStart("the simulator could not be built; the errors stand above")
    if not program.exists():
        raise CannotStart(f"there is no cargo and no {program}; name a simulator with SIMULATOR=/path/to/it")
    return program


@contextlib.contextmanager
def running(target, world):
    """The file that describes a running simulator; one is started if `world` is none."""
    if world:
        yield world.resolve()
        return
    if network.is_own():
        network.bring_up_loopback()
    world, log = target / "world.json", target / "simulator.log"
    world.unlink(missing_ok=True)
    ports = [f"--{name}-port={port}" for name, port in _PORTS.items()]
    settings = ["--no-handler", "--consumer-group=second", f"--json={world}"]
    command = [os.environ["SIMULATOR"], "run", *ports, *settings]
    with open(log, "w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        _wait(process, world, log)
        yield world
    finally:
        alive = process.poll() is None
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
    if not alive:
        raise CannotStart(f"the simulator ended while the cases ran; see {log}")


def _wait(process, world, log):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CannotStart(f"the simulator did not start: {log.read_text().strip()[-2000:]}")
        with contextlib.suppress(OSError, ValueError):
            json.loads(world.read_text())
            return
        time.sleep(0.05)
    raise CannotStart(f"the simulator did not say within {START_S} s where it is; see {log}")
