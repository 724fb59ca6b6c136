"""Check that this tree can be released, build what a release consists of, and try it.

Builds the sdist, and the wheel from the sdist, so that what is published is complete; looks at
both as an index would, without one; installs the wheel by itself and makes a call. Says at the
end which commands are left to a person. Pushes, tags and uploads nothing.

With --dry the state of the tree is told and stops nothing, and all goes to build/release.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "structured-buffer-exchange"

BUILD_SDIST = (
    "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
)
# What the wheel is for: the package by itself, which starts its own remote.
TRY = """
import sbe
with sbe.connect("loopback:", timeout=30) as link:
    assert link.call("echo", payload=b"hi", timeout=30).payload == b"hi"
print(sbe.__version__)
"""
IN_WHEEL = {
    "sbe/__init__.py",
    "sbe/_native.abi3.so",
    "sbe/_native.pyi",
    "sbe/py.typed",
    "sbe/sbe-remote",
    "sbe/testing/conformance/test_services.py",
    "sbe/testing/plugin.py",
}


class Unfit(Exception):
    """What was built is not what should be released."""


def output(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints; its errors go where ours go. What the user set for SBE is not seen."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SBE_")}
    done = subprocess.run(command, cwd=cwd, env=clean, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def version(root: Path = ROOT) -> str:
    """By pyproject.toml's own rule, as the build finds it."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    rule = pyproject["tool"]["scikit-build"]["metadata"]["version"]
    match = re.search(rule["regex"], (root / rule["input"]).read_text(), re.M)
    if match is None:
        raise Unfit(f"{rule['input']}: no version")
    return str(rule["result"].format(**match.groupdict()))


def disagreements(root: Path = ROOT) -> list[str]:
    """Pages that have another version than the header: wrong at any time."""
    now = version(root)
    found = []
    heading = re.search(r"^## (\S+)", (root / "CHANGELOG.md").read_text(), re.M)
    if heading is None or heading[1] != now:
        found.append(f"CHANGELOG.md: the first heading is not '## {now}'")
    if re.findall(r"^Version (\d+\.\d+\.\d+)\b", (root / "README.md").read_text(), re.M) != [now]:
        found.append(f"README.md: the state is not that of 'Version {now}'")
    return found


def unready(root: Path = ROOT) -> list[str]:
    """What has to be done before this tree is a release."""
    now = version(root)
    found = []
    if changed := output("git", "status", "--porcelain", cwd=root).splitlines():
        found.append(f"the tree is not clean: {changed[0].strip()}, {len(changed)} in all")
    if output("git", "tag", "--list", f"v{now}", cwd=root):
        found.append(f"the tag v{now} is there: a release is never made again")
    dated = rf"^## {re.escape(now)} \(\d{{4}}-\d\d-\d\d\)$"
    if not re.search(dated, (root / "CHANGELOG.md").read_text(), re.M):
        found.append(f"CHANGELOG.md: no date, as in '## {now} (2027-01-31)'")
    if "not released" in (root / "README.md").read_text():
        found.append("README.md: still says 'not released'")
    return found


def build(folder: Path) -> tuple[Path, Path]:
    """Sdist and wheel, alone in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    output(sys.executable, "-c", BUILD_SDIST, folder)
    [sdist] = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    output(*pip, "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, sdist)
    [wheel] = folder.glob("*.whl")
    return sdist, wheel


def check_metadata(text: bytes, now: str) -> None:
    """As an index reads it: every field valid, and ours."""
    from packaging.metadata import Metadata

    metadata = Metadata.from_email(text, validate=True)
    readme = (ROOT / "README.md").read_text().strip()
    if (metadata.name, str(metadata.version)) != (NAME, now):
        raise Unfit(f"metadata of {metadata.name} {metadata.version} instead of {NAME} {now}")
    if metadata.description_content_type != "text/markdown":
        raise Unfit(f"the description is {metadata.description_content_type}")
    if (metadata.description or "").strip() != readme:
        raise Unfit("the description is not README.md")


def check_sdist(sdist: Path, now: str, root: Path = ROOT) -> None:
    """What git has, but for what pyproject.toml leaves out, and nothing else."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    left_out = tuple(f"{each}/" for each in pyproject["tool"]["scikit-build"]["sdist"]["exclude"])
    git = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = output(*git, cwd=root)
    wanted = {name for name in listed.split("\0") if name and not name.startswith(left_out)}
    with tarfile.open(sdist) as archive:
        top = f"{NAME.replace('-', '_')}-{now}/"
        held = {each.name.removeprefix(top) for each in archive if not each.isdir()}
        member = archive.extractfile(f"{top}PKG-INFO")
        if member is None:
            raise Unfit(f"{sdist.name}: PKG-INFO is not a file")
        check_metadata(member.read(), now)
    if wrong := sorted(wanted ^ held - {"PKG-INFO"}):
        raise Unfit(f"{sdist.name}: too few or too many: {', '.join(wrong[:10])}")


def check_wheel(wheel: Path, now: str) -> None:
    """The package, its metadata, and nothing that would lie among other projects' files."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"{NAME.replace('-', '_')}-{now}.dist-info/"
        check_metadata(archive.read(f"{info}METADATA"), now)
    if missing := IN_WHEEL - names:
        raise Unfit(f"{wheel.name}: lacks {', '.join(sorted(missing))}")
    if not any(name.startswith(info) and name.endswith("LICENSE") for name in names):
        raise Unfit(f"{wheel.name}: no LICENSE")
    if strange := [name for name in names if not name.startswith(("sbe/", info))]:
        raise Unfit(f"{wheel.name}: also has {', '.join(sorted(strange))}")
    if "-cp311-abi3-linux_" not in wheel.name:
        raise Unfit(f"{wheel.name}: not for every Python from 3.11 on")


def try_wheel(wheel: Path, folder: Path, now: str) -> None:
    """Installed by itself, away from the checkout, it makes a call."""
    place = folder / "tried"
    output(sys.executable, "-m", "venv", "--without-pip", place)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    output(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel)
    said = output(python, "-I", "-c", TRY, cwd=folder).strip()
    if said != now:
        raise Unfit(f"{wheel.name}: installed, it says it is {said}")
    shutil.rmtree(place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="of any tree, into build/release")
    dry = parser.parse_args().dry
    wrong, missing = disagreements(), unready()
    for line in [*wrong, *missing]:
        print(f"release: {line}", file=sys.stderr)
    if wrong or (missing and not dry):
        return 1
    now = version()
    folder = ROOT / ("build/release" if dry else "dist")
    try:
        sdist, wheel = build(folder)
        check_sdist(sdist, now)
        check_wheel(wheel, now)
        try_wheel(wheel, folder, now)
    except Unfit as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"release: failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    print(f"{NAME} {now}, built, checked and tried:")
    for path in (sdist, wheel):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"  {path.relative_to(ROOT)}  sha256:{digest}")
    print("Nothing was tagged, pushed or uploaded. What is left, see docs/release.md:")
    print(f'  git tag -a v{now} -m "{now}"')
    print(f"  git push origin v{now}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
