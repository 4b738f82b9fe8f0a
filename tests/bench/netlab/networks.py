"""The networks compared: each gives a namespace a way out and publishes the same ports of it.

Every one is started as its users start it (podman's flags where podman starts it), by the unprivileged user in
the host's namespace. `pid` is a process in the namespace; `relays` are the processes that move its bytes.
"""

import io
import json
import os
import shutil
import signal
import socket
import tarfile

from .lab import Failed, descendants, say, stat, until

# How many ports the small flows spread over.
SPREAD = 8


class Network:
    """One of them; `base` is the first of its ports, the same number inside and on the host."""

    name, program = "", ""
    # Whether it has a way out of its own, and publishes ports.
    out, ports = True, True

    def __init__(self, lab, mtu, base):
        self.lab, self.mtu, self.base = lab, mtu, base
        self.iperf, self.http, self.flows = base, base + 1, base + 10
        self.started = []
        self.pid = None

    @classmethod
    def missing(cls):
        return None if shutil.which(cls.program) else f"{cls.program} is not installed"

    def tcp_ports(self):
        return [self.iperf, self.http, *range(self.flows, self.flows + SPREAD)]

    def begin(self, command):
        process = self.lab.start(command)
        self.started.append(process)
        return process

    def hold(self):
        """A namespace of the user with nothing in it."""
        holder = self.begin(["unshare", "--user", "--map-root-user", "--net", self.lab.flows, "hold"])
        until(lambda: self.inside(holder.pid), "a namespace", gone=holder.ended)
        return holder.pid

    def inside(self, pid):
        return (stat(pid) or ("",))[0] == "flows"

    def routed(self, process=None):
        """Waits for the default route inside."""

        def has_route():
            return any(line.split()[1:2] == ["00000000"] for line in open(f"/proc/{self.pid}/net/route"))

        try:
            until(has_route, f"{self.name}'s route", gone=process and process.ended)
        except Failed as failed:
            raise Failed(f"{failed}: {process.errors() if process else ''}") from None
        self.lab.set_congestion(self.pid)

    def stop(self):
        for process in reversed(self.started):
            process.kill(signal.SIGTERM if process.command[0] == "rootlesskit" else signal.SIGKILL)

    def stop_quietly(self):
        """Stops what there is, also of one that did not start."""
        try:
            self.stop()
        except Failed as failed:
            say(f"{self.name}: {failed}")

    def helpers(self):
        """Every process that lives because of the namespace, the relays among them."""
        return self.relays


class Rcon(Network):
    name, program = "rcon", "rcon"

    @classmethod
    def missing(cls):
        return None

    @staticmethod
    def prepare(lab):
        """An image that holds one program."""
        with tarfile.open(lab.path("work/image.tar"), "w") as image:
            for name in ("proc", "dev", "sys", "etc", "tmp"):
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                image.addfile(folder)
            data = open(lab.flows, "rb").read()
            program = tarfile.TarInfo("flows")
            program.size, program.mode = len(data), 0o755
            image.addfile(program, io.BytesIO(data))
        lab.run([lab.rcon, "import", lab.path("work/image.tar"), "localhost/bench:latest"])

    def start(self):
        self.container = f"bench-{self.base}"
        publish = [word for port in self.tcp_ports() for word in ("-p", f"{port}:{port}")]
        self.lab.run(
            [self.lab.rcon, "run", "-d", "--name", self.container, "--network", f"slirp4netns:mtu={self.mtu}",
             *publish, "-p", f"{self.iperf}:{self.iperf}/udp", "localhost/bench:latest", "/flows", "hold"]
        )  # fmt: skip
        self.pid = int(self.inspect("{{.State.Pid}}"))
        self.monitor = stat(self.pid)[1]
        self.routed()

    def inspect(self, template):
        return self.lab.run([self.lab.rcon, "inspect", "--format", template, self.container]).output().strip()

    @property
    def relays(self):
        # Looked up each time: it is started anew should it end.
        below = [pid for pid in descendants(self.monitor) if (stat(pid) or ("",))[0].startswith("rcon-net")]
        return [deeper for pid in below for deeper in descendants(pid)]

    def helpers(self):
        return [self.monitor, *self.relays]

    def stop(self):
        self.lab.run([self.lab.rcon, "rm", "-f", "-t", "0", self.container])


class Alone(Network):
    """rcon's network without the rest of it: the example with_network of crates/net, in rcon's place."""

    name, program, path = "rcon", "rcon", None

    @classmethod
    def missing(cls):
        return None

    @classmethod
    def prepare(cls, lab):
        cls.copy = shutil.copy(cls.path, lab.path("with_network"))
        os.chmod(cls.copy, 0o755)

    def start(self):
        publish = [word for port in self.tcp_ports() for word in ("-p", f"{port}:{port}")]
        self.told = self.lab.path("work", f"pid-{self.base}")
        process = self.begin(
            [self.copy, *publish, "-p", f"{self.iperf}:{self.iperf}/udp", "-o", f"mtu={self.mtu}",
             "--pid-file", self.told, self.lab.flows, "hold"]
        )  # fmt: skip
        self.pid = int(until(self.written, "a namespace", gone=process.ended))
        self.routed(process)
        served = [line for line in process.errors().splitlines() if line.startswith("served by ")]
        self.relays = [int(served[0].split()[-1])]

    def written(self):
        text = open(self.told).read() if os.path.exists(self.told) else ""
        return text.strip() if text.endswith("\n") else None


class Slirp4netns(Network):
    name, program = "slirp4netns", "slirp4netns"

    def start(self):
        self.pid = self.hold()
        socket_path = self.lab.path(f"work/slirp-{self.base}")
        process = self.begin(
            ["slirp4netns", "--disable-host-loopback", f"--mtu={self.mtu}", "--enable-sandbox", "--enable-seccomp",
             "--configure", "--api-socket", socket_path, self.pid, "tap0"]
        )  # fmt: skip
        self.routed(process)
        until(lambda: os.path.exists(socket_path), "slirp4netns's socket", gone=process.ended)
        for port in self.tcp_ports():
            self.forward(socket_path, "tcp", port)
        self.forward(socket_path, "udp", self.iperf)
        self.relays = descendants(process.pid)

    def forward(self, path, protocol, port):
        request = {
            "execute": "add_hostfwd",
            "arguments": {"proto": protocol, "host_addr": "0.0.0.0", "host_port": port,
                          "guest_addr": "10.0.2.100", "guest_port": port},
        }  # fmt: skip
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(path)
            control.sendall(json.dumps(request).encode())
            control.shutdown(socket.SHUT_WR)
            answer = json.loads(control.makefile().read() or "{}")
        if "error" in answer:
            raise Failed(f"slirp4netns does not publish {port}: {answer['error']}")


class Pasta(Network):
    name, program = "pasta", "pasta"

    def start(self):
        self.pid = self.hold()
        ports = ",".join(str(port) for port in self.tcp_ports())
        process = self.begin(
            ["pasta", "--foreground", "--quiet", "--config-net", "--no-map-gw", "--mtu", self.mtu, "--tcp-ports",
             ports, "--udp-ports", self.iperf, "--tcp-ns", "none", "--udp-ns", "none", self.pid]
        )  # fmt: skip
        self.routed(process)
        self.relays = descendants(process.pid)


class Rootlesskit(Network):
    """Its port handler; what goes out of it goes through slirp4netns, which has rows of its own."""

    name, program, out = "rootlesskit", "rootlesskit", False

    @classmethod
    def missing(cls):
        return super().missing() or (None if shutil.which("slirp4netns") else "it needs slirp4netns")

    def start(self):
        publish = [word for port in self.tcp_ports() for word in ("-p", f"0.0.0.0:{port}:{port}/tcp")]
        process = self.begin(
            ["rootlesskit", "--net=slirp4netns", f"--mtu={self.mtu}", "--disable-host-loopback",
             "--port-driver=builtin", *publish, "-p", f"0.0.0.0:{self.iperf}:{self.iperf}/udp", "--copy-up=/etc",
             f"--state-dir={self.lab.path('work', f'rootlesskit-{self.base}')}", self.lab.flows, "hold"]
        )  # fmt: skip

        def holder():
            return next((pid for pid in descendants(process.pid) if self.inside(pid)), None)

        try:
            self.pid = until(holder, "rootlesskit", gone=process.ended)
        except Failed as failed:
            raise Failed(f"{failed}: {process.errors()}") from None
        self.routed(process)
        self.relays = [pid for pid in descendants(process.pid) if pid != self.pid]


class Bare(Network):
    """No network of ours between: the host's own, the ceiling."""

    name, program = "bare", "ip"

    def start(self):
        self.pid, self.relays = self.lab.host, []

    def stop(self):
        pass


ALL = (Bare, Rcon, Slirp4netns, Pasta, Rootlesskit)
PEERS = tuple(kind.name for kind in (Slirp4netns, Pasta, Rootlesskit))
__all__ = ["ALL", "PEERS", "SPREAD", "Alone", "Bare", "Network", "Rcon"]
