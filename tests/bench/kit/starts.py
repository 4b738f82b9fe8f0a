"""The measuring part of tests/bench/run, as the user: kit.starts FOLDER ROUNDS quick|full

Tells what it does and finds in JSON lines on standard output; asks there for the memory of processes that only root
may look into, and reads the answer from standard input.
"""

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

from .figures import row

PR_SET_CHILD_SUBREAPER = 36
BUNDLE_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
]


def tell(**what):
    print(json.dumps(what), flush=True)


def say(text):
    tell(say=text)


def pss(pattern):
    tell(pss=pattern)
    return json.loads(sys.stdin.readline())


class Watch:
    """Starts commands and takes their time, and the CPU time of all that they leave behind and that ends after them."""

    def __init__(self, work):
        self.nothing = os.open("/dev/null", os.O_RDWR)
        self.log = os.open(os.path.join(work, "log"), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.streams = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((self.nothing, self.nothing, self.log))]
        # What commands leave becomes ours, so that it can be waited for and counted.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.staying = set()

    def children(self):
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return set(map(int, file.read().split()))

    def settle(self, seconds=2.0):
        """Waits for what has been left, but for those who stay: the processes of containers, podman's pause."""
        end = time.monotonic() + seconds
        while True:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                self.staying.clear()
                return
            left = self.children()
            if left <= self.staying:
                return
            if time.monotonic() > end:
                self.staying |= left
                return
            time.sleep(0.0005)

    def start(self, command):
        # Python ignores these two, and who starts so may take it for his own doing (pasta does).
        default = [signal.SIGPIPE, signal.SIGXFSZ]
        return os.posix_spawnp(command[0], command, os.environ, file_actions=self.streams, setsigdef=default)

    def once(self, command, settle=2.0):
        """The exit code, the wall time in ms, and the CPU time in ms."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        pid = self.start(command)
        # Whatever ends meanwhile and was left to us is taken too: podman waits for the end of a conmon that it has left.
        while (ended := os.waitpid(-1, 0))[0] != pid:
            pass
        wall = time.perf_counter() - begin
        self.settle(settle)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return os.waitstatus_to_exitcode(ended[1]), wall * 1000, cpu * 1000

    def said(self):
        """The last line that a failing command said."""
        lines = os.pread(self.log, 1 << 20, 0).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "?"

    def does(self, command, settle=2.0):
        os.ftruncate(self.log, 0)
        os.lseek(self.log, 0, os.SEEK_SET)
        return self.once(command, settle)[0] == 0

    def must(self, *command, settle=0.05):
        if not self.does(list(command), settle):
            sys.exit(f"{' '.join(command)}: {self.said()}")

    def together(self, commands, width):
        """Runs them all, so many at the same time: seconds, and how many failed."""
        begin, failed, running, waiting = time.perf_counter(), 0, set(), list(commands)
        while waiting or running:
            while waiting and len(running) < width:
                running.add(self.start(waiting.pop()))
            pid, status = os.waitpid(-1, 0)
            if pid in running:
                running.remove(pid)
                failed += status != 0
        took = time.perf_counter() - begin
        self.settle(10)
        return took, failed


def counter():
    """The words that count a command's instructions in user space, or None."""
    if not shutil.which("perf"):
        return None
    words = ["perf", "stat", "-x", ",", "-e", "instructions:u"]
    done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    return words if done.returncode == 0 and done.stderr.split(",")[0].isdigit() else None


class Bench:
    def __init__(self, work, rounds, quick):
        self.work, self.rounds, self.quick = work, rounds, quick
        self.rcon = os.path.join(work, "rcon")
        self.files = os.path.join(os.environ["HOME"], "root")
        self.watch = Watch(os.environ["HOME"])
        self.counter = counter()
        if not self.counter:
            say("without instructions: this machine does not let perf count them")
        self.image = "localhost/bench/busybox"
        # Who has podman's commands, and the words that begin one.
        self.programs = {"rcon": [self.rcon]}

    def prepare(self):
        """The files that all start in: busybox and nothing else."""
        busybox = shutil.which("busybox")
        if not busybox:
            sys.exit("busybox is missing: apt-get install busybox-static")
        for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
            os.makedirs(os.path.join(self.files, name))
        shutil.copy(busybox, os.path.join(self.files, "bin/busybox"))
        for name in ("sh", "true", "sleep", "cat"):
            os.symlink("busybox", os.path.join(self.files, "bin", name))
        archive = os.path.join(os.environ["HOME"], "root.tar")
        subprocess.run(["tar", "-C", self.files, "--owner=0", "--group=0", "-cf", archive, "."], check=True)
        self.watch.must(self.rcon, "import", "-q", archive, "bench/busybox")
        if not shutil.which("podman"):
            say("left out: podman (apt-get install podman)")
            return
        os.environ["CONTAINERS_CONF"] = os.path.join(os.environ["HOME"], "containers.conf")
        with open(os.environ["CONTAINERS_CONF"], "w") as file:
            file.write('[containers]\ncgroups="disabled"\n[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\n')
        # Without being told it takes vfs where it finds nobody's storage.conf, and copies all files each time.
        podman = ["podman", "--storage-driver", "overlay"]
        start = [*podman, "run", "--rm", self.image, "/bin/true"]
        if self.watch.does([*podman, "import", "-q", archive, "bench/busybox"]) and self.watch.does(start):
            self.programs["podman"] = podman
        else:
            say(f"left out: podman, which does not run here: {self.watch.said()}")

    def instructions(self, command):
        path = os.path.join(os.environ["HOME"], "perf")
        if self.watch.once([*self.counter[:2], "-o", path, *self.counter[2:], *command])[0] != 0:
            return None
        with open(path) as file:
            words = [line.split(",")[0] for line in file if "instructions" in line]
        return int(words[0]) / 1e6 if words and words[0].isdigit() else None

    def timed(self, section, titles, unit="ms"):
        """Rows of commands: titles is {title: {name: command}}; all in turn, so that a slow moment meets everybody."""
        asked = [(title, name, command) for title, some in titles.items() for name, command in some.items()]
        able = []
        for title, name, command in asked:
            if self.watch.does(command) and self.watch.does(command):
                able.append((title, name, command))
            else:
                say(f"left out: {title}, {name}, which does not run here: {self.watch.said()}")
        seen = {title: {} for title in titles}
        for turn in range(self.rounds):
            begin = turn % len(able)
            for title, name, command in able[begin:] + able[:begin]:
                figure = seen[title].setdefault(name, {"value": [], "cpu_ms": [], "failed": 0})
                code, wall, cpu = self.watch.once(command)
                if code == 0:
                    figure["value"].append(wall)
                    figure["cpu_ms"].append(cpu)
                else:
                    figure["failed"] += 1
                if self.counter and turn < 5:
                    figure.setdefault("instructions_m", []).append(self.instructions(command))
        for title, figures in seen.items():
            ordered = {name: figures[name] for name in titles[title] if name in figures}
            tell(row=row(section, title, unit, ordered))
        say(f"measured: {', '.join(titles)}")

    def starts(self):
        bare = ["unshare", "-Urmpfn", "--mount-proc", "/bin/true"]
        own, none = {"bare": bare}, {}
        if shutil.which("bwrap"):
            own["bwrap"] = ["bwrap", "--unshare-all", "--ro-bind", self.files, "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]
        else:
            say("left out: bwrap (apt-get install bubblewrap)")
        for name, program in self.programs.items():
            own[name] = [*program, "run", "--rm", self.image, "/bin/true"]
            none[name] = [*program, "run", "--rm", "--network", "none", self.image, "/bin/true"]
        self.timed("Starts", {"run --rm IMAGE true": own, "run --rm --network none IMAGE true": none})
        # The runtimes alone: no image, no network of their own.
        bundle, state = (os.path.join(os.environ["HOME"], name) for name in ("bundle", "state"))
        os.makedirs(bundle)
        ids = [("uidMappings", os.getuid()), ("gidMappings", os.getgid())]
        spaces = ["pid", "ipc", "uts", "mount", "user", "cgroup", "network"]
        spec = {
            "ociVersion": "1.0.2",
            "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "env": ["PATH=/bin"],
                        "cwd": "/", "noNewPrivileges": True},
            "root": {"path": self.files, "readonly": True}, "hostname": "bench", "mounts": BUNDLE_MOUNTS,
            "linux": {key: [{"containerID": 0, "hostID": own_id, "size": 1}] for key, own_id in ids}
            | {"namespaces": [{"type": kind} for kind in spaces]},
        }  # fmt: skip
        with open(os.path.join(bundle, "config.json"), "w") as file:
            json.dump(spec, file)
        runtimes = {"bare": bare, "rcon": [self.rcon, "oci", "--root", state, "run", "--bundle", bundle, "b-rcon"]}
        for name, more in (("crun", ["--cgroup-manager", "disabled"]), ("runc", [])):
            if shutil.which(name):
                runtimes[name] = [name, "--root", state, *more, "run", "--bundle", bundle, f"b-{name}"]
            else:
                say(f"left out: {name} (apt-get install {name})")
        self.timed("Starts of a bundle", {"run of a bundle": runtimes})

    def running(self):
        """With containers that run: one, then many."""
        many = 10 if self.quick else 50
        patterns = {"rcon": f"^{self.rcon} ", "podman": "conmon|slirp4netns|rootlessport"}
        shown = {"rcon": "rcon", "podman": "podman, slirp4netns"}
        first = {name: 20000 + random.randrange(4000) + 5000 * at for at, name in enumerate(self.programs)}

        def detached(name, number):
            self.watch.must(*self.programs[name], "run", "-d", "--name", f"c{number}", "-p", f"{first[name] + number}:80", self.image,
                            "/bin/sleep", "1000")  # fmt: skip

        def memories(count):
            found = {shown[name]: {"value": [kept / count]} for name in self.programs if (kept := pss(patterns[name])) is not None}
            return found

        for name in self.programs:
            detached(name, 1)
        time.sleep(1)
        one = memories(1)
        self.timed("exec", {"exec C true": {name: [*program, "exec", "c1", "/bin/true"] for name, program in self.programs.items()}})
        for number in range(2, many + 1):
            for name in self.programs:
                detached(name, number)
        self.timed("Lists", {f"ps with {many} running": {name: [*program, "ps"] for name, program in self.programs.items()}})
        each = memories(many)
        for name, program in self.programs.items():
            self.watch.must(*program, "rm", "-a", "-f", "-t", "0")
        self.watch.settle(10)
        if "podman" in self.programs and shutil.which("pasta"):
            self.beside_pasta(many, one, each)
        else:
            say("left out: podman, pasta (apt-get install podman passt)")
        for title, found in (("one with a published port", one), (f"each of {many}", each)):
            if found:
                tell(row=row("What stays in memory of a container, without its program", title, "MiB", found))
            else:
                say(f"left out: memory of {title}: only root may look into guarded processes")

    def beside_pasta(self, many, one, each):
        """The other network that podman can have, made by hand: its version here may not know it."""
        found, podman = set(), self.programs["podman"]
        for number in range(1, many + 1):
            self.watch.must(*podman, "run", "-d", "--name", f"p{number}", "--network", "none", self.image, "/bin/sleep", "1000")
            pid = subprocess.run([*podman, "inspect", "--format", "{{.State.Pid}}", f"p{number}"], capture_output=True,
                                 text=True, check=True).stdout.strip()  # fmt: skip
            before = self.watch.children()
            if not self.watch.does(["pasta", "--quiet", "--config-net", "--tcp-ports", f"{29000 + number}:80", pid], 0.02):
                say(f"left out: podman, pasta, which does not run here: {self.watch.said()}")
                break
            found |= self.watch.children() - before
            if number == 1:
                time.sleep(1)
                one["podman, pasta"] = {"value": [pss("conmon|pasta")]}
        else:
            each["podman, pasta"] = {"value": [pss("conmon|pasta") / many]}
        self.watch.must(*podman, "rm", "-a", "-f", "-t", "0")
        # It ends with the namespace, a moment later.
        for pid in found & self.watch.children():
            os.kill(pid, signal.SIGTERM)
        self.watch.settle(5)

    def ended(self):
        """Containers that do not run."""
        many = 100 if self.quick else 1000
        for _ in range(many):
            self.watch.must(self.rcon, "create", self.image, "/bin/true", settle=0)
        self.timed("Lists", {f"ps -a with {many} containers": {"rcon": [self.rcon, "ps", "-a"]}})
        self.watch.must(self.rcon, "rm", "-a", "-f")

    def many(self):
        """Started together; each must succeed."""
        everything, some = (40, 24) if self.quick else (200, 50)
        at_once, rates = {}, {}
        for name, program in self.programs.items():
            command = [*program, "run", "--rm", self.image, "/bin/true"]
            took, failed = self.watch.together([command] * everything, everything)
            at_once[name] = {"value": [took], "failed": failed}
            took, failed = self.watch.together([command] * some, 8)
            rates[name] = {"value": [some / took], "failed": failed}
        tell(row=row("Many at once", f"{everything} run --rm at the same time", "s", at_once))
        tell(row=row("Many at a time", f"{some} run --rm, 8 at a time", "per s", rates, lower=False))

    def clear(self):
        if podman := self.programs.get("podman"):
            self.watch.once([*podman, "rmi", "-f", self.image])
            self.watch.once([*podman, "system", "reset", "-f"])
        self.watch.must(self.rcon, "rmi", "-f", self.image)
        # podman's pause, which would stay for good.
        for pid in self.watch.children():
            os.kill(pid, signal.SIGKILL)


def main():
    bench = Bench(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "quick")
    bench.prepare()
    bench.starts()
    bench.running()
    bench.ended()
    bench.many()
    bench.clear()


if __name__ == "__main__":
    main()
