"""What is asked of package managers, and told to them: in a real shell, with programs that answer as those of EL 9 do.

The answers are written after dnf(8), rpm(8), getsebool(8) and the output of dnf 4.14; no such host was asked.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nornir_k3s import shell
from nornir_k3s.facts.packages import Packages, Repositories
from nornir_k3s.records import SAY, read

# Names of 80 columns' worth are wrapped; i686 comes, too.
LISTED = """\
Available Packages
mariadb.x86_64             3:10.5.29-3.el9_7    rhel-9-for-x86_64-appstream-rpms
mariadb-server.x86_64
                           3:10.5.29-3.el9_7    rhel-9-for-x86_64-appstream-rpms
mariadb-server-utils.x86_64
                           3:10.5.29-3.el9_7    rhel-9-for-x86_64-appstream-rpms
"""
NO_CACHE = "Error: Cache-only enabled but no cache for 'appstream'"
NO_MATCH = "Error: No matching Packages to list"


@pytest.fixture
def bin_(tmp_path: Path) -> Path:
    """A PATH with what every host has, and nothing that asks this machine's own packages."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "awk", "cat", "cp", "date", "dirname", "flock", "grep", "mkdir", "mv", "rm", "sed", "sort",
                 "stat", "tail", "tr", "uniq"):  # fmt: skip
        found = subprocess.run(["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=True)
        (folder / name).symlink_to(found.stdout.strip())
    return folder


def put(folder: Path, **programs: str) -> None:
    for name, text in programs.items():
        (folder / name.replace("_", "-")).write_text(f'#!/bin/sh\necho "{name} $*" >>{folder.parent}/calls\n{text}\n')
        (folder / name.replace("_", "-")).chmod(0o755)


def run(folder: Path, source: str, call: str) -> subprocess.CompletedProcess[str]:
    script = f"STATE={folder.parent} STEP=1\n{SAY}{shell.source(source)}{call}\n"
    command = [str(folder / "sh"), "-eu"]
    environment = {"PATH": str(folder), "LC_ALL": "C"}
    return subprocess.run(command, input=script, capture_output=True, text=True, check=False, env=environment)


def rpm(*installed: str) -> str:
    """A fake rpm -q, that knows names and versions."""
    known = "\n".join(one.replace("=", " ") for one in installed)
    return f"""form='' missing=0
if [ "$2" = --qf ]; then form=$3; shift 2; fi
shift
for name; do
  version=$(sed -n "s/^$name //p" <<'END'
{known}
END
)
  if [ -z "$version" ]; then echo "package $name is not installed"; missing=1
  elif [ -n "$form" ]; then
    line=$(printf '%s' "$form" | sed "s/%{{NAME}}/$name/; s/%{{VERSION}}-%{{RELEASE}}/$version/; s/%{{ARCH}}/x86_64/")
    printf '%b' "$line"
  fi
done
exit $missing"""


def test_installed_packages_of_rpm(bin_: Path) -> None:
    put(bin_, rpm=rpm("haproxy=2.4.22-4.el9", "keepalived=2.2.8-4.el9_5"))
    out = run(bin_, "facts/packages.sh", "fact_packages dnf haproxy perl-IO keepalived").stdout
    found = Packages().parse(read(out, whole=False)["packages"])
    assert found == {"haproxy": "2.4.22-4.el9", "keepalived": "2.2.8-4.el9_5"}


@pytest.mark.parametrize(
    ("dnf", "candidates", "unavailable"),
    [
        (f"cat <<'END'\n{LISTED}END", {"mariadb": "10.5.29-3.el9_7", "mariadb-server": "10.5.29-3.el9_7"}, ()),
        (f'echo "{NO_MATCH}" >&2; exit 1', {}, ("mariadb-server", "mariadb")),
        (f'echo "{NO_CACHE}" >&2; exit 1', {}, ()),  # dnf itself says so later
    ],
)
def test_what_dnf_would_install_is_read_from_its_cache(
    bin_: Path, dnf: str, candidates: dict[str, str], unavailable: tuple[str, ...]
) -> None:
    put(bin_, rpm=rpm(), dnf=dnf)
    out = run(bin_, "facts/packages.sh", "fact_repositories dnf mariadb-server mariadb").stdout
    found = Repositories().parse(read(out, whole=False)["repositories"])
    assert (found.candidates, found.unavailable, found.broken) == (candidates, unavailable, ())
    calls = [one for one in (bin_.parent / "calls").read_text().splitlines() if one.startswith("dnf")]
    assert calls == ["dnf -q -C --noplugins list --available mariadb-server mariadb"], "nothing is downloaded"


def test_an_installed_package_is_not_looked_for_and_two_versions_of_it_are_what_an_interrupted_dnf_left(
    bin_: Path,
) -> None:
    twice = 'case $* in *--qf*) printf "@installed mariadb-server.x86_64\\n@installed mariadb-server.x86_64\\n";; esac'
    put(bin_, rpm=twice, dnf="exit 1")
    out = run(bin_, "facts/packages.sh", "fact_repositories dnf mariadb-server").stdout
    found = Repositories().parse(read(out, whole=False)["repositories"])
    assert (found.broken, found.unavailable) == (("mariadb-server",), ())
    assert "dnf" not in (bin_.parent / "calls").read_text()


def test_repositories_that_are_switched_off_do_not_count(tmp_path: Path, bin_: Path) -> None:
    (tmp_path / "rocky.repo").write_text(
        "[baseos]\nname=Rocky\nenabled=1\n\n[baseos-debug]\nenabled = 0\n\n[extras]\nname=no word of it\n"
    )
    (tmp_path / "crb.repo").write_text("[crb]\nenabled=False\n[appstream]\nenabled=1\nenabled_metadata=0\n")
    assert run(bin_, "facts/packages.sh", f"enabled_repositories {tmp_path}").stdout == "3\n"
    (tmp_path / "none").mkdir()
    assert run(bin_, "facts/packages.sh", f"enabled_repositories {tmp_path}/none").stdout == "0\n"


def test_dnf_installs_without_weak_dependencies_and_notes_first_what_is_ours(bin_: Path) -> None:
    after = rpm("haproxy=2.4.22-4.el9", "keepalived=2.2.8-4.el9_5", "perl-IO=1.43-481.el9")
    before = rpm("haproxy=2.4.22-4.el9", "keepalived=2.2.8-4.el9_5")
    put(bin_, rpm_after=after)
    put(bin_, rpm=before, dnf=f"mv {bin_}/rpm-after {bin_}/rpm")
    done = run(bin_, "apply/steps.sh", "install_packages dnf haproxy keepalived perl-IO || echo failed")
    calls = (bin_.parent / "calls").read_text().splitlines()
    assert "dnf -qy --setopt=install_weak_deps=False --setopt=retries=3 install haproxy keepalived perl-IO" in calls
    assert (bin_.parent / "packages").read_text() == "perl-IO\n", "what was there is somebody else's"
    assert "@package\thaproxy\t2.4.22-4.el9" in done.stdout
    assert not [one for one in calls if one.startswith(("apt", "dpkg"))]


def test_what_dnf_complains_of_is_told(bin_: Path) -> None:
    put(bin_, rpm=rpm(), dnf="echo 'Error: Unable to find a match: mariadb-server' >&2; exit 1")
    done = run(bin_, "apply/steps.sh", "install_packages dnf mariadb-server")
    assert done.returncode
    assert "Unable to find a match" in done.stderr
    assert "@did" not in done.stdout


def test_a_package_that_another_one_provides_is_told_and_not_installed_again_in_each_run(bin_: Path) -> None:
    put(bin_, rpm=rpm(), dnf="exit 0")
    done = run(bin_, "apply/steps.sh", "install_packages dnf mysql-server")
    assert done.returncode
    assert done.stderr == "dnf has installed another package for mysql-server\n"


def test_apt_restarts_nothing_and_asks_nothing(bin_: Path) -> None:
    told = f"echo $DEBIAN_FRONTEND $NEEDRESTART_MODE $NEEDRESTART_SUSPEND >>{bin_.parent}/told"
    put(bin_, dpkg="exit 0", dpkg_query="exit 0", apt_get=told)
    assert run(bin_, "apply/steps.sh", "install_packages apt haproxy").returncode == 0
    assert (bin_.parent / "told").read_text() == "noninteractive l 1\n" * 3, "Ubuntu's needrestart would restart K3s"


def test_first_data_are_made_once(tmp_path: Path, bin_: Path) -> None:
    made = tmp_path / "PG_VERSION"
    put(bin_, postgresql_setup=f"echo ' * Initializing database in {tmp_path}'; echo 13 >{made}")
    call = shell.call("initialize", made, "postgresql-setup --initdb")
    for _ in range(2):
        assert run(bin_, "apply/steps.sh", call).stdout == "@did\t1\tchanged\n"
    assert (tmp_path / "calls").read_text() == "postgresql_setup --initdb\n"


@pytest.mark.parametrize(
    ("mode", "found"), [("Enforcing", ["@booleans\thaproxy_connect_any\toff"]), ("Permissive", [])]
)
def test_a_boolean_counts_where_selinux_is_enforcing(bin_: Path, mode: str, found: list[str]) -> None:
    put(bin_, getenforce=f"echo {mode}", getsebool='echo "$1 --> off"')
    assert run(bin_, "facts/kernel.sh", "fact_booleans haproxy_connect_any").stdout.splitlines() == found


def test_a_boolean_stays_on(bin_: Path) -> None:
    put(bin_, setsebool="exit 0")
    assert run(bin_, "apply/steps.sh", "allow haproxy_connect_any").returncode == 0
    assert (bin_.parent / "calls").read_text() == "setsebool -P haproxy_connect_any on\n"


@pytest.mark.parametrize(
    ("verified", "active", "example"),
    [("", False, True), ("S.5....T.  c /etc/haproxy/haproxy.cfg", False, False), ("", True, False)],
)
def test_the_example_that_a_package_comes_with_serves_nobody(
    bin_: Path, verified: str, active: bool, example: bool
) -> None:
    put(bin_, rpm=f'[ "$1" = -q ] || echo "{verified}"', systemctl="exit 0" if active else "exit 3")
    call = "if unchanged haproxy /etc/haproxy/haproxy.cfg; then echo example; fi"
    assert (run(bin_, "facts/others.sh", call).stdout == "example\n") is example


def test_a_file_gets_the_label_of_its_place(tmp_path: Path, bin_: Path) -> None:
    put(bin_, restorecon="exit 1")
    assert run(bin_, "apply/steps.sh", f"label {tmp_path}/haproxy.cfg").returncode == 0
    assert (tmp_path / "calls").read_text() == f"restorecon {tmp_path}/haproxy.cfg\n"
