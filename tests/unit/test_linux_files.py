"""The files of linux/ agree with the code and with each other: names, users, paths, options."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sbe import control
from sbe.daemon import config
from sbe.kernel import dma_heap, importer, udmabuf
from sbe.remotes import rpmsg
from tests.udev_rules import ROOT, rules

LINUX = ROOT / "linux"
SERVICE, SOCKET = "sbe-daemon.service", "sbe-daemon.socket"
DTS = LINUX / "dts" / "sbe-example.dtso"
# Of the section below, no need of ours.
RIG_ONLY = {"MAILBOX", "MAILBOX_TEST", "OF", "REMOTEPROC_CDEV", "SYNC_FILE"}


def options(path: Path) -> set[str]:
    return set(re.findall(r"^CONFIG_(\w+)=y", path.read_text(), re.M))


def said(unit: str, key: str) -> str:
    """The value of a key that a systemd unit has once."""
    text = (LINUX / "systemd" / unit).read_text()
    [value] = re.findall(rf"^{key}=(.*)$", text, re.M)
    return str(value)


def declared() -> tuple[set[str], set[str]]:
    """Users and groups that sysusers makes; a user has a group of its name."""
    lines = [line.split() for line in (LINUX / "sysusers" / "sbe.conf").read_text().splitlines()]
    users = {line[1] for line in lines if line and line[0] == "u"}
    return users, users | {line[1] for line in lines if line and line[0] == "g"}


def test_users_and_groups_are_made():
    users, groups = declared()
    assert config.DEFAULT_GROUP in groups
    assert {said(SERVICE, "User"), said(SOCKET, "SocketUser")} <= users
    assert said(SERVICE, "Group") == said(SOCKET, "SocketGroup") == config.DEFAULT_GROUP
    for rule in rules():
        assert {rule.assign.get("OWNER", "sbe")} <= users
        for command, group in re.findall(r"/bin/(\w+) (\S+)", rule.assign.get("RUN", "")):
            assert group in ({"chgrp": groups}.get(command) or {"g+w"})
    for line in (LINUX / "tmpfiles" / "sbe.conf").read_text().splitlines():
        if not line.startswith("#"):
            assert line.split()[3] in users
            assert line.split()[4] in groups


def test_groups_that_are_advised_lead_to_the_socket():
    """Who starts processors also calls them: every line of every page has the socket's group."""
    pages = [*ROOT.glob("docs/**/*.md"), *LINUX.rglob("*.md"), ROOT / "README.md"]
    advised = [
        (set(groups.split(",")), user)
        for page in pages
        for groups, user in re.findall(r"usermod -aG (\S+) (\w+)", page.read_text())
    ]
    assert {config.DEFAULT_GROUP} in [groups for groups, _ in advised]
    starting = {
        group
        for rule in rules()
        for group in re.findall(r"/bin/chgrp (\S+)", rule.assign.get("RUN", ""))
    }
    assert {config.DEFAULT_GROUP, *starting} in [groups for groups, _ in advised]
    for groups, user in advised:
        assert config.DEFAULT_GROUP in groups, f"{user} can't reach the socket"


def test_the_unit_lets_the_daemon_start_processors():
    """Not its user but its groups count, and /sys must be writable: [[link]] start = true."""
    groups = {said(SERVICE, "Group"), *said(SERVICE, "SupplementaryGroups").split()}
    for rule in rules():
        for group in re.findall(r"/bin/chgrp (\S+)", rule.assign.get("RUN", "")):
            assert group in groups
    assert said(SERVICE, "ProtectKernelTunables") == "no"


def test_the_unit_gives_the_daemon_no_rights_that_it_does_not_need():
    for key, value in {
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "DevicePolicy": "closed",
        "MemoryDenyWriteExecute": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "RestrictAddressFamilies": "AF_UNIX AF_NETLINK",
        "SystemCallArchitectures": "native",
    }.items():
        assert said(SERVICE, key) == value
    text = (LINUX / "systemd" / SERVICE).read_text()
    filters = re.findall(r"^SystemCallFilter=(.*)$", text, re.M)
    assert filters[0] == "@system-service"
    assert "~@privileged" in filters
    assert said(SOCKET, "SocketMode") == "0660"
    assert said(SOCKET, "DirectoryMode") == said(SERVICE, "RuntimeDirectoryMode") == "0750"


def test_a_serial_doorbell_takes_the_drop_in():
    """The unit refuses ttys: where one is shown, it says what else there is to install."""
    drop_in = LINUX / "dropins" / "serial.conf"
    [device] = re.findall(r"^DeviceAllow=(\S+) rw$", drop_in.read_text(), re.M)
    assert "tty" not in (LINUX / "systemd" / SERVICE).read_text()
    for page in (LINUX / "etc" / "daemon.toml", ROOT / "docs" / "tutorials" / "daemon.md"):
        shown = [line for line in page.read_text().splitlines() if f'"serial:{device},' in line]
        assert shown
        assert all("linux/dropins/serial.conf" in line for line in shown)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze (sudo apt install systemd)")
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_understands_the_units(tmp_path: Path):
    """With a program that is there, and both files beside each other."""
    for unit in (SERVICE, SOCKET):
        text = (LINUX / "systemd" / unit).read_text()
        (tmp_path / unit).write_text(
            re.sub(r"^ExecStart=.*", "ExecStart=/bin/true", text, flags=re.M)
        )
    folder = tmp_path / f"{SERVICE}.d"
    folder.mkdir()
    shutil.copy(LINUX / "dropins" / "serial.conf", folder)
    ran = analyze("verify", "--man=no", tmp_path / SERVICE, tmp_path / SOCKET)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_systemd_finds_the_unit_well_confined():
    unit = LINUX / "systemd" / SERVICE
    ran = analyze("security", "--offline=true", "--threshold=15", unit)
    if "unrecognized option" in ran.stderr:
        pytest.skip("systemd-analyze has no --offline (systemd 250)")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_socket_is_where_the_code_looks():
    folder = Path(control.DEFAULT_SOCKET).parent
    assert said(SOCKET, "ListenStream") == control.DEFAULT_SOCKET
    assert f"/run/{said(SERVICE, 'RuntimeDirectory')}" == str(folder)
    assert f"\nd {folder} " in (LINUX / "tmpfiles" / "sbe.conf").read_text()


def test_rules_and_unit_name_the_devices_that_are_opened():
    named = {Path("/dev", rule.match.get("KERNEL", "")).as_posix() for rule in rules()}
    assert {importer.DEVICE, udmabuf.DEVICE} <= named
    assert dma_heap.FOLDER.name in {rule.match["SUBSYSTEM"] for rule in rules()}
    service = (LINUX / "systemd" / SERVICE).read_text()
    allowed = re.findall(r"^DeviceAllow=(\S+) rw$", service, re.M)
    assert {importer.DEVICE, udmabuf.DEVICE, f"char-{dma_heap.FOLDER.name}"} <= set(allowed)
    [endpoints] = [rule for rule in rules() if rule.match.get("ATTR.name") == "sbe-*"]
    assert rpmsg._unique("doorbell").startswith("sbe-")
    assert endpoints.match["KERNEL"] == "rpmsg[0-9]*"


def test_overlay_and_rules_name_the_same_window():
    [rule] = [rule for rule in rules() if rule.match["SUBSYSTEM"] == "uio"]
    name = rule.match["ATTR.name"]
    text = DTS.read_text()
    at = re.search(rf'{name}@(\w+) {{\s+compatible = "generic-uio";\s+reg = <(0x\w+ 0x\w+)>', text)
    assert at, "the node gives the device its name"
    assert at[2].startswith(f"0x{at[1]} ")
    assert text.count(f"reg = <{at[2]}>;") == 2, "what is mapped is what is reserved"
    for address, start in re.findall(r"@(\w+) {[^}]*?reg = <0x(\w+) ", text):
        assert address == start


def test_a_boards_kernel_has_what_the_rigs_has():
    rig = (ROOT / "tests" / "rigs" / "kernel" / "fragment.config").read_text()
    section = rig.split("# What SBE uses\n")[1].split("\n\n")[0]
    used = set(re.findall(r"^CONFIG_(\w+)=y", section, re.M))
    assert used - RIG_ONLY <= options(LINUX / "kconfig" / "sbe.config")


def test_readme_names_every_file():
    text = (LINUX / "README.md").read_text()
    for path in LINUX.rglob("*"):
        if path.is_file() and path.parent.name != "kernel" and path.name != "README.md":
            place = path.relative_to(LINUX).as_posix()
            assert f"`{place}`" in text or f"`{place.split('/')[0]}/`" in text, place
