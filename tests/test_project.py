"""The project's frame: make targets, pinned versions, scripts."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()
PINNED = {
    canonicalize_name(line.partition("==")[0]): line.partition("==")[2]
    for line in CONSTRAINTS
    if not line.startswith("#")
}


def requirements(lines: list[str]) -> list[Requirement]:
    return [found for line in lines if (found := Requirement(line)).name != PROJECT["name"]]


def stub(folder: Path, name: str, script: str) -> Path:
    """Put a program of that name into ``folder``."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# -- make -------------------------------------------------------------------------------------------------------------


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert targets is not None
    told = run("make", "help").stdout
    listed = re.findall(r"^  make (\w+) +\S.+$", told, re.MULTILINE)
    assert sorted(listed) == sorted(targets[1].split())
    assert {"demo", "run", "test", "lint", "type", "format", "bench", "docs", "lock", "clean"} <= set(listed)


def test_make_alone_is_make_help() -> None:
    assert run("make").stdout == run("make", "help").stdout


def test_ci_runs_make_test_from_the_projects_folder_and_says_that_it_is_ci(tmp_path: Path) -> None:
    stub(tmp_path, "make", 'echo "$CI $PWD $*"')
    done = subprocess.run(
        [ROOT / ".ci" / "run"],
        cwd="/",
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"1 {ROOT} test\n"


# -- versions ---------------------------------------------------------------------------------------------------------


def test_constraints_are_versions_and_nothing_else() -> None:
    for line in CONSTRAINTS:
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line


@pytest.mark.parametrize("group", ["dependencies", *EXTRAS])
def test_every_declared_dependency_is_pinned_to_a_version_that_it_allows(group: str) -> None:
    declared = PROJECT["dependencies"] if group == "dependencies" else EXTRAS[group]
    for requirement in requirements(declared):
        pinned = PINNED.get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement.name} is not in constraints.txt; run: make lock"
        assert requirement.specifier.contains(pinned), f"{requirement} does not allow {pinned}; run: make lock"


def test_everything_that_a_dependency_needs_here_is_pinned_too() -> None:
    # Of each, with the extras that are asked for; what is not installed is not needed on this machine.
    todo = requirements([*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)])
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        assert name in PINNED, f"{name} is not in constraints.txt; run: make lock"
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                todo.append(needed)
    assert len(seen) > len(PROJECT["dependencies"])


def test_every_package_that_jobber_imports_is_declared() -> None:
    declared = {
        canonicalize_name(found.name)
        for found in requirements(PROJECT["dependencies"] + EXTRAS["clickhouse"] + EXTRAS["duckdb"])
    }
    distributions = importlib.metadata.packages_distributions()
    for file in (ROOT / "jobber").rglob("*.py"):
        for module in imported(file) - sys.stdlib_module_names - {"jobber"}:
            names = {canonicalize_name(name) for name in distributions[module]}
            assert names & declared, f"{file.relative_to(ROOT)} imports {module}, which pyproject.toml does not name"


def imported(file: Path) -> set[str]:
    """Return the top-level modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


# -- the virtual environment ------------------------------------------------------------------------------------------


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    done = run("scripts/make-venv", "python9.9", tmp_path / "venv")
    assert done.returncode == 1
    assert "there is no python9.9 here" in done.stderr


def test_an_old_python_is_refused_with_its_version(tmp_path: Path) -> None:
    python = stub(tmp_path, "python3", 'case "$2" in *python_version*) echo 3.9.2;; *version_info*) exit 1;; esac')
    done = run("scripts/make-venv", python, tmp_path / "venv")
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert "is 3.9.2" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_ensurepip_is_told_which_package_to_install(tmp_path: Path) -> None:
    python = stub(tmp_path, "python3", 'case "$2" in *python_version*) echo 3.11.2;; *ensurepip*) exit 1;; esac')
    done = run("scripts/make-venv", python, tmp_path / "venv")
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


# -- the servers for the tests ----------------------------------------------------------------------------------------


#: Programs of servers and the packages that hold them.
SERVERS = {
    "postgres": "postgresql",
    "redis-server": "redis-server",
    "mariadbd": "mariadb-server",
    "rabbitmq-server": "rabbitmq-server",
}


class Machine:
    """A made-up machine: ``root`` is its file system, ``programs`` is all of its PATH."""

    def __init__(self, folder: Path) -> None:
        self.root, self.programs = folder / "root", folder / "programs"
        for path in (self.root / "usr" / "sbin", self.root / "etc" / "postgresql-common", self.programs):
            path.mkdir(parents=True)
        for name in ("bash", "cat", "chmod", "env", "mkdir", "rm", "rmdir", "sh", "touch"):
            found = shutil.which(name)
            assert found
            (self.programs / name).symlink_to(found)
        stub(self.programs, "python3", "exit 0")

    def user(self, number: int) -> None:
        stub(self.programs, "id", f"echo {number}")

    def install(self) -> None:
        """Put the servers in place."""
        for program in SERVERS:
            stub(self.programs, program, "exit 0")

    def apt(self, script: str) -> None:
        """Make apt-get log its arguments, and then do what ``script`` says."""
        stub(self.programs, "apt-get", f'echo "$*" >> {self.root}/apt.log\n{script}')

    @property
    def log(self) -> list[str]:
        """What apt-get was asked for."""
        path = self.root / "apt.log"
        return path.read_text().splitlines() if path.exists() else []

    def test_servers(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return run("scripts/test-servers", PATH=str(self.programs), SYSTEM_ROOT=str(self.root), **environment)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without servers, whose user is root and whose apt-get fails."""
    machine = Machine(tmp_path)
    machine.user(0)
    machine.apt("exit 100")
    return machine


def test_nothing_is_done_or_said_where_all_servers_are_there(machine: Machine) -> None:
    machine.install()
    done = machine.test_servers(CI="1")
    assert (done.returncode, done.stdout, done.stderr, machine.log) == (0, "", "", [])


def test_missing_servers_are_named_where_the_user_cannot_install_them(machine: Machine) -> None:
    machine.user(1000)
    done = machine.test_servers()
    assert (done.returncode, machine.log) == (0, [])
    assert done.stderr == f"not installed: {' '.join(SERVERS.values())}\nthe tests that need them are skipped\n"


def test_missing_servers_fail_ci(machine: Machine) -> None:
    machine.user(1000)
    done = machine.test_servers(CI="1")
    assert done.returncode == 1
    assert f"not installed: {' '.join(SERVERS.values())}" in done.stderr


def test_root_installs_what_is_missing_without_starting_a_service_or_making_a_cluster(machine: Machine) -> None:
    policy = machine.root / "usr" / "sbin" / "policy-rc.d"
    cluster = machine.root / "etc" / "postgresql-common" / "createcluster.d"
    machine.apt(
        f"{policy}; echo $? > {machine.root}/policy; cat {cluster}/* > {machine.root}/cluster\n"
        f"for name in {' '.join(SERVERS)}; do echo > {machine.programs}/$name; "
        f"chmod 755 {machine.programs}/$name; done"
    )
    done = machine.test_servers(CI="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[-len(SERVERS) :] for line in machine.log] == [list(SERVERS.values())]
    # While apt-get ran, and afterwards.
    assert (machine.root / "policy").read_text() == "101\n"
    assert (machine.root / "cluster").read_text() == "create_main_cluster = false\n"
    assert not policy.exists()
    assert not cluster.exists()


def test_package_lists_that_are_absent_are_fetched_first(machine: Machine) -> None:
    ready = machine.root / "updated"
    machine.apt(
        f'case "$*" in update*) touch {ready};; *) [ -e {ready} ] || exit 100\n'
        f"for name in {' '.join(SERVERS)}; do echo > {machine.programs}/$name; "
        f"chmod 755 {machine.programs}/$name; done;; esac"
    )
    done = machine.test_servers(CI="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in machine.log] == ["install", "update", "install"]


def test_a_policy_for_services_that_stands_already_is_left_alone(machine: Machine) -> None:
    policy = stub(machine.root / "usr" / "sbin", "policy-rc.d", "exit 104")
    before = policy.read_text()
    done = machine.test_servers()
    assert machine.log
    assert policy.read_text() == before
    assert done.returncode == 0
    assert "are skipped" in done.stderr


def test_an_installation_that_fails_is_an_error_in_ci_and_leaves_no_trace(machine: Machine) -> None:
    done = machine.test_servers(CI="1")
    assert done.returncode == 1
    assert list((machine.root / "usr" / "sbin").iterdir()) == []
    assert not (machine.root / "etc" / "postgresql-common" / "createcluster.d").exists()


# -- links ------------------------------------------------------------------------------------------------------------


def check_links(folder: Path, **files: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"{name}.md").write_text(text)
    return run(sys.executable, "scripts/check_links.py", folder)


def test_links_to_files_and_headings_that_exist_are_fine(tmp_path: Path) -> None:
    done = check_links(
        tmp_path,
        a="# One, `two`!\n[x](b.md) [y](b.md#some-thing) [z](#one-two) [w](https://example.org/no#where)\n[r]: b.md\n",
        b="## Some thing\n\n```sh\n# not a heading\n[no](link.md)\n```\nand `[no](link.md)` neither\n",
    )
    assert (done.returncode, done.stdout) == (0, "all links lead somewhere\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\n[x](gone.md)", "a.md:2: gone.md: there is no such file"),
        ("[x](b.md#nowhere)", "a.md:1: b.md#nowhere: there is no such heading"),
        ("[x](#nowhere)", "a.md:1: #nowhere: there is no such heading"),
        ('![x](gone.png "title")', "a.md:1: gone.png: there is no such file"),
        ("[x][r]\n\n[r]: gone.md", "a.md:3: gone.md: there is no such file"),
        ("[x](b.md#not-a-heading)", "a.md:1: b.md#not-a-heading: there is no such heading"),
    ],
)
def test_a_broken_link_is_named_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    done = check_links(tmp_path, a=text, b="# Some thing\n```\n# not a heading\n```\n")
    assert done.returncode == 1
    assert problem in done.stdout.splitlines()


def test_the_links_of_the_project_lead_somewhere() -> None:
    done = run(sys.executable, "scripts/check_links.py")
    assert done.returncode == 0, done.stdout
