"""The packages that drive the simulator, in the versions that are pinned."""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

from . import CannotStart


def _run(command, where):
    try:
        subprocess.run(command, cwd=where, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotStart(f"install the packages: {error}") from None


def _once(folder, pins, install):
    """Installs unless these very pins were installed before."""
    stamp, wanted = folder / "installed", hashlib.sha256(b"".join(pin.read_bytes() for pin in pins)).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install()
        stamp.write_text(wanted)


def install(source, target):
    requirements, python = source / "python" / "requirements.txt", target / "python"

    def pip():
        _run([sys.executable, "-m", "venv", python], source)
        _run([python / "bin" / "pip", "install", "--quiet", "--requirement", requirements], source)

    _once(python, [requirements], pip)
    manifest, node = [source / "node" / name for name in ("package.json", "package-lock.json")], target / "node"

    def npm():
        for file in manifest:
            shutil.copy(file, node)
        _run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], node)

    _once(node, manifest, npm)
    # Node looks for packages beside the file that asks for them.
    for file in (source / "node").glob("*.mjs"):
        shutil.copy(file, node)


def versions(target):
    """Package and runtime versions that are really there."""
    ask = (
        "import importlib.metadata as m, json, platform;"
        "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()} | {'python': platform.python_version()}))"
    )
    python = subprocess.run([target / "python" / "bin" / "python", "-c", ask], check=True, capture_output=True).stdout
    node = {
        "node": subprocess.run(["node", "--version"], check=True, capture_output=True, text=True).stdout.strip()[1:]
    }
    modules = target / "node" / "node_modules"
    for name in json.loads((target / "node" / "package.json").read_text())["dependencies"]:
        node[name] = json.loads(pathlib.Path(modules, name, "package.json").read_text())["version"]
    return {"python": json.loads(python), "node": node}
