"""The cases of both languages, at the same time."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parent.parent
ALL_S = 480


def _environment(world):
    """How each package is told whom to trust, where its own interface has no way to say so."""
    certificate = json.loads(world.read_text())["ca_file"]
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    kept = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    trust = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), certificate)
    return {**kept, **trust, "PYTHONDONTWRITEBYTECODE": "1"}


def languages(target, world, only, one):
    """The rows of all languages, or of one. Cases that disturb others have the simulator for themselves at the end."""
    chosen = [language for language in ("python", "node") if one in (None, language)]
    for language in chosen:
        (target / f"{language}.log").unlink(missing_ok=True)
    rows = _play(chosen, "together", target, world, only)
    for language in chosen:
        rows += _play([language], "alone", target, world, only)
    return rows


def _play(chosen, phase, target, world, only):
    commands = {
        "python": [target / "python" / "bin" / "python", SOURCE / "python" / "main.py"],
        "node": ["node", target / "node" / "main.mjs"],
    }
    rows, threads, started = [], [], []
    environment = _environment(world)
    try:
        for language in chosen:
            command = [*commands[language], world, phase, only]
            with open(target / f"{language}.log", "a") as log:
                process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            started.append(process)
            threads.append(threading.Thread(target=_collect, args=(language, process, rows), daemon=True))
            threads[-1].start()
        deadline = time.monotonic() + ALL_S
        for thread in threads:
            thread.join(deadline - time.monotonic())
    finally:
        for process in started:
            process.kill()
    return rows


def _collect(language, process, rows):
    for line in process.stdout:
        rows.append({"language": language, **json.loads(line)})
        if sys.stderr.isatty():
            failed = sum(row["result"] == "failed" for row in rows)
            print(f"\r{len(rows)} cases played, {failed} failed ", end="", file=sys.stderr, flush=True)
