"""Two machines made of namespaces, a throw-away user, and processes that end with the bench.

"host" and "outside" are network namespaces joined by a pair of interfaces; nothing else is reachable from them.
Networks and programs run as an unprivileged user; root only sets up. Every process started here dies with the
bench (parent-death signal), and is ended by its id before that.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"
HERE = os.path.dirname(os.path.abspath(__file__))
HOLD = os.path.join(HERE, "../../lab/hold")


class Failed(Exception):
    """A step that did not work, in words for the report."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def until(ready, what, seconds=10.0, gone=None):
    """Waits for ready() to give something; gone() ends the wait early."""
    end = time.monotonic() + seconds
    while True:
        value = ready()
        if value:
            return value
        if time.monotonic() > end or (gone and gone()):
            raise Failed(f"{what}: not within {seconds:.0f} s" if not (gone and gone()) else f"{what}: it ended")
        time.sleep(0.005)


def stat(pid):
    """The name, parent and CPU seconds of a process, or None."""
    try:
        text = open(f"/proc/{pid}/stat").read()
    except OSError:
        return None
    name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    # proc(5): utime and stime are the 14th and 15th field, rest begins at the third.
    return name, int(rest[1]), (int(rest[11]) + int(rest[12])) / os.sysconf("SC_CLK_TCK")


def descendants(pid):
    """All processes below pid, itself first."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (seen := stat(entry)):
            parents.setdefault(seen[1], []).append(int(entry))
    found, at = [pid], 0
    while at < len(found):
        found += parents.get(found[at], [])
        at += 1
    return found


def cpu(pids):
    """CPU seconds used so far by these processes, all their threads together."""
    return sum(seen[2] for pid in pids if (seen := stat(pid)))


def memory(pids):
    """Resident memory of these processes in KiB: proportional (shared pages divided) and plain."""
    total = {"Pss": 0, "Rss": 0}
    for pid in pids:
        try:
            for line in open(f"/proc/{pid}/smaps_rollup"):
                name, _, value = line.partition(":")
                if name in total:
                    total[name] += int(value.split()[0])
        except OSError:
            pass
    return total


def listening(pid, port, protocol="tcp"):
    """Whether something listens on the port in the network namespace of pid."""
    wanted = "0A" if protocol == "tcp" else "07"
    for family in ("", "6"):
        for line in open(f"/proc/{pid}/net/{protocol}{family}").readlines()[1:]:
            fields = line.split()
            if fields[3] == wanted and fields[1].endswith(f":{port:04X}"):
                return True
    return False


class Process:
    """A program started in a network namespace, with its output and the CPU time it took."""

    def __init__(self, command, netns=None, user=None, env=None, stdin=subprocess.DEVNULL):
        prefix = ["nsenter", f"--net=/proc/{netns}/ns/net"] if netns else []
        prefix += ["setpriv", "--pdeathsig", "KILL"]
        if user:
            prefix += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.child = subprocess.Popen(
            prefix + [str(word) for word in command],
            stdin=stdin, stdout=self.out, stderr=self.err, cwd="/", env=env, start_new_session=True,
        )  # fmt: skip
        self.pid, self.command, self.usage = self.child.pid, command, None

    def ended(self):
        if self.child.returncode is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.child.returncode = os.waitstatus_to_exitcode(status)
                self.usage = usage.ru_utime + usage.ru_stime
        return self.child.returncode is not None

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > end:
                self.kill()
                raise Failed(f"{self.command[0]} did not end: {self.errors()}")
            time.sleep(0.005)
        return self.child.returncode

    def kill(self, number=signal.SIGKILL):
        if not self.ended():
            os.kill(self.pid, number)
            end = time.monotonic() + 5
            while not self.ended():
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.002)
        if self.child.stdin:
            self.child.stdin.close()

    def output(self):
        self.out.seek(0)
        return self.out.read().decode(errors="replace")

    def errors(self):
        self.err.seek(0)
        return self.err.read().decode(errors="replace").strip()[-400:]

    def json(self):
        return json.loads(self.output())


class Lab:
    """The machines, the user and the folder of one run of the bench."""

    def __init__(self, rcon, congestion=None):
        self.congestion, self.started, self.base, self.keeper = congestion, [], None, None
        self.rcon_source = rcon

    def __enter__(self):
        try:
            self.base = tempfile.mkdtemp(prefix="rcon-bench-network.")
            os.chmod(self.base, 0o755)
            self.keeper = subprocess.Popen([HOLD, self.base], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if self.keeper.stdout.readline() != b"ready\n":
                raise Failed("tests/lab/hold could not make the throw-away user")
            self.user = pwd.getpwnam("rcontest")
            for name in ("home", "run", "work"):
                os.mkdir(self.path(name), 0o700)
                os.chown(self.path(name), self.user.pw_uid, self.user.pw_gid)
            os.chmod(self.path("work"), 0o755)
            self.env = {
                "HOME": self.path("home"), "USER": self.user.pw_name, "XDG_RUNTIME_DIR": self.path("run"),
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
            }  # fmt: skip
            self.rcon = shutil.copy(self.rcon_source, self.path("rcon"))
            self.flows = self.path("flows")
            subprocess.run(
                ["rustc", "--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o",
                 self.flows, os.path.join(HERE, "flows.rs")], check=True,
            )  # fmt: skip
            os.chmod(self.flows, 0o755)
            self.machines()
            return self
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.kill()
        if self.keeper:
            self.keeper.stdin.close()
            self.keeper.wait()

    def path(self, *names):
        return os.path.join(self.base, *names)

    def machines(self):
        ours = os.readlink("/proc/self/ns/net")
        holders = [self.keep(Process(["unshare", "--net", self.flows, "hold"])) for _ in range(2)]
        for holder in holders:
            until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != ours, "a network namespace", gone=holder.ended)
        self.host, self.outside = (holder.pid for holder in holders)
        subprocess.run(
            ["ip", "link", "add", "lan0", "netns", str(self.host), "type", "veth", "peer", "name", "lan0",
             "netns", str(self.outside)], check=True,
        )  # fmt: skip
        for pid, address in ((self.host, HOST), (self.outside, OUTSIDE)):
            self.root(pid, f"ip link set lo up; ip link set lan0 up; ip address add {address}/24 dev lan0")
            self.set_congestion(pid)
        self.root(self.host, f"ip route add default via {OUTSIDE}")

    def set_congestion(self, pid):
        if self.congestion:
            self.root(pid, f"sysctl -qw net.ipv4.tcp_congestion_control={self.congestion}")

    def root(self, pid, script):
        """Runs a script as root in the network namespace of pid."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-ec", script], capture_output=True, text=True
        )
        if done.returncode:
            raise Failed(f"{script}: {done.stderr.strip()}")
        return done.stdout.strip()

    def start(self, command, netns=None, **more):
        """Starts a program as the user, on the host or in the namespace of a process."""
        return Process(command, netns=netns or self.host, user=self.user, env=self.env, **more)

    def keep(self, process):
        """Ends the process with the lab, if nothing does before."""
        self.started.append(process)
        return process

    def run(self, command, seconds=30, **more):
        """Runs a program as the user to its end and gives what it printed."""
        process = self.start(command, **more)
        if process.wait(seconds):
            raise Failed(f"{' '.join(map(str, command[:3]))}: {process.errors() or process.output()[-400:]}")
        return process
