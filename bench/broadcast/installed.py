"""What the other contenders need, in .holdfast/bench/, at the versions of package-lock.json and requirements.txt.

Node.js, npm and redis-server come from Debian. `python -m bench.broadcast` calls this by itself.

    python -m bench.broadcast.installed
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / ".holdfast" / "bench"
BULLMQ = FOLDER / "bullmq"
CELERY = FOLDER / "celery"
CELERY_APP = HERE / "celery_app"
SYSTEM = {"node": "nodejs", "npm": "npm", "redis-server": "redis-server"}
SECONDS = 600


class NotInstalled(Exception):
    """Something is missing that cannot be installed here; the message names it."""


def system_packages() -> None:
    """Debian's packages, for the programs that are not there.

    Raises:
        NotInstalled: and this is not root on a Debian.
    """
    missing = [package for program, package in SYSTEM.items() if not shutil.which(program)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NotInstalled(f"needed first: apt-get install {' '.join(missing)}")
    subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=SECONDS)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], check=True, timeout=SECONDS
    )


def _wanted() -> str:
    pins = (HERE / "bullmq" / "package-lock.json", CELERY_APP / "requirements.txt")
    return hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()


def ensure() -> None:
    """Install what is missing or of another version; our own files are always the newest."""
    system_packages()
    BULLMQ.mkdir(parents=True, exist_ok=True)
    for path in (HERE / "bullmq").iterdir():
        if path.is_file():
            shutil.copy(path, BULLMQ)  # Node looks for packages beside the file and above it only
    stamp = FOLDER / "installed"
    if stamp.exists() and stamp.read_text() == _wanted():
        return
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=BULLMQ,
        check=True,
        timeout=SECONDS,
    )
    venv.create(CELERY, with_pip=True, clear=True)
    pip: list[str | Path] = [CELERY / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "-r", CELERY_APP / "requirements.txt"], check=True, timeout=SECONDS)
    stamp.write_text(_wanted())


def versions() -> str:
    """Of what runs."""
    asked = {
        "Node.js": ["node", "--version"],
        "Redis": ["redis-server", "--version"],
    }
    said = {
        name: subprocess.run(command, check=True, timeout=SECONDS, capture_output=True, text=True).stdout.split()
        for name, command in asked.items()
    }
    redis = next(word.removeprefix("v=") for word in said["Redis"] if word.startswith("v="))
    pins = dict(line.split("==") for line in (CELERY_APP / "requirements.txt").read_text().split())
    node = dict(
        line.strip().rstrip(",").replace('"', "").split(": ")
        for line in (HERE / "bullmq" / "package.json").read_text().splitlines()
        if line.startswith("    ")
    )
    return (
        f"Node.js {said['Node.js'][0].removeprefix('v')}, bullmq {node['bullmq']}, undici {node['undici']}, "
        f"ioredis {node['ioredis']}; Celery {pins['celery']}, requests {pins['requests']}; "
        f"Redis {redis}"
    )


if __name__ == "__main__":
    try:
        ensure()
    except NotInstalled as missing:
        sys.exit(str(missing))
    print(versions())
