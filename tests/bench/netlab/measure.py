"""The measurements: one sample each, of one network on one path.

A path is three things: where the client runs, where the server runs, and the address the client calls.
"out" goes from the container to the outside; "lo" and "lan" come to a published port from the host's loopback
and from the outside by the host's address. Bytes may flow either way on each.
"""

import os
import subprocess

from .lab import HOST, OUTSIDE, Failed, cpu, listening, memory, until
from .networks import SPREAD


def places(lab, net, path):
    return {
        "out": (net.pid, lab.outside, OUTSIDE),
        "lo": (lab.host, net.pid, "127.0.0.1"),
        "lan": (lab.outside, net.pid, HOST),
    }[path]


class Server:
    """A server for the length of one measurement."""

    def __init__(self, lab, netns, port, command):
        self.lab, self.netns, self.port, self.command = lab, netns, port, command

    def __enter__(self):
        self.process = self.lab.start(self.command, netns=self.netns)
        try:
            until(lambda: listening(self.netns, self.port), f"{self.command[0]}", gone=self.process.ended)
        except Failed as failed:
            self.process.kill()
            raise Failed(f"{failed}: {self.process.errors()}") from None
        return self.process

    def __exit__(self, *_):
        self.process.kill()


def throughput(lab, net, path, seconds, streams=1, back=False, udp=False):
    """Gbit/s received, and CPU seconds per GB received: of all together, and of the relays alone."""
    client_ns, server_ns, address = places(lab, net, path)
    command = ["iperf3", "-J", "-c", address, "-p", net.iperf, "-t", seconds, "--connect-timeout", 5000]
    command += ["-P", streams] * (streams > 1) + ["-R"] * back
    command += ["-u", "-b", "0", "-l", "1400"] * udp
    with Server(lab, server_ns, net.iperf, ["iperf3", "-s", "-1", "-p", net.iperf]) as server:
        relays = net.relays
        before = cpu(relays)
        client = lab.start(command, netns=client_ns)
        try:
            failed = client.wait(seconds + 8)
            try:
                server.wait(3)
            except Failed:
                pass
            relay = cpu(relays) - before
            result = client.json()
        except ValueError:
            raise Failed(f"iperf3: {client.errors()}") from None
        finally:
            client.kill()
    if failed or "error" in result:
        raise Failed(f"iperf3: {result.get('error', client.errors())}")
    end = result["end"]
    total = end["sum_received"]
    received, duration = total["bytes"], total["seconds"]
    if not received:
        raise Failed("iperf3: nothing came through")
    sample = {
        "gbps": received * 8e-9 / duration,
        "s_per_gb": (client.usage + server.usage + relay) / (received * 1e-9),
        "relay_s_per_gb": relay / (received * 1e-9),
    }
    if udp:
        sample["lost_percent"] = 100 * (1 - received / max(end["sum_sent"]["bytes"], received))
    else:
        sample["retransmits"] = end["sum_sent"].get("retransmits")
    return sample


def idle_flows(lab, net, path, count):
    """A client that holds `count` connections, and its server: end both with `release`."""
    client_ns, server_ns, address = places(lab, net, path)
    server = Server(lab, server_ns, net.flows, [lab.flows, "serve", net.flows, SPREAD])
    server.__enter__()
    client = lab.start(
        [lab.flows, "idle", address, net.flows, SPREAD, count], netns=client_ns, stdin=subprocess.PIPE
    )

    def release():
        client.kill()
        server.__exit__()

    try:
        until(lambda: '"held"' in client.output(), f"{count} idle flows", seconds=60, gone=client.ended)
    except Failed as failed:
        release()
        raise Failed(f"{failed}: {client.errors()}") from None
    return release


def throughput_beside_idle(lab, net, path, seconds, idle, **more):
    release = idle_flows(lab, net, path, idle)
    try:
        return throughput(lab, net, path, seconds, **more)
    finally:
        release()


# A user's pipes together may hold so many pages (pipe(7), pipe-user-pages-soft); beyond, a new pipe has two.
TAKE_PIPES = """
import fcntl, os, sys
held = []
for size in (1 << 20, 1 << 16):
    try:
        while len(held) < 4000:
            held.append(os.pipe())
            fcntl.fcntl(held[-1][1], 1031, size)
            if fcntl.fcntl(held[-1][1], 1032) < size: break
    except OSError: pass
print("taken", fcntl.fcntl(os.pipe()[1], 1032), flush=True)
sys.stdin.read()
"""


def throughput_short_pipes(lab, net, path, seconds, **more):
    taker = lab.start(["python3", "-c", TAKE_PIPES], stdin=subprocess.PIPE)
    try:
        until(lambda: "taken" in taker.output(), "taking all pipes", gone=taker.ended)
        if int(taker.output().split()[1]) >= 65536:
            raise Failed("pipes could not be made short")
        return throughput(lab, net, path, seconds, **more)
    finally:
        taker.kill()


def small(lab, net, path, words, seconds):
    client_ns, server_ns, address = places(lab, net, path)
    with Server(lab, server_ns, net.flows, [lab.flows, "serve", net.flows, SPREAD]):
        relays = net.relays
        before = cpu(relays)
        client = lab.start([lab.flows, words[0], address, net.flows, *words[1:]], netns=client_ns)
        try:
            if client.wait(seconds + 15):
                raise Failed(f"flows: {client.errors()}")
        finally:
            client.kill()
        return client.json() | {"relay_seconds": cpu(relays) - before}


def round_trip(lab, net, path, seconds):
    """Microseconds for one byte there and back."""
    return small(lab, net, path, ["trip", seconds], seconds)


def connections(lab, net, path, seconds):
    """Connections a second, one after another: connect, a byte there and back, close."""
    result = small(lab, net, path, ["rate", SPREAD, seconds], seconds)
    return result | rates(result, "connections")


def rates(result, what):
    """How many a second, and the relays' CPU microseconds for one."""
    return {
        "per_s": result[what] / result["seconds"],
        "relay_us": result["relay_seconds"] * 1e6 / max(result[what], 1),
    }


NGINX = """
daemon off; worker_processes 1; error_log stderr; pid {dir}/pid;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
    server {{ listen {port}; location / {{ return 200 "{body}"; }} }}
}}
"""


def http(lab, net, path, seconds, keep_alive):
    """Requests a second: wrk with 32 connections against nginx with one worker and a page of 1 KiB."""
    client_ns, server_ns, address = places(lab, net, path)
    folder = lab.path("work", f"nginx-{net.base}")
    if not os.path.isdir(folder):
        os.mkdir(folder)
        os.chown(folder, lab.user.pw_uid, lab.user.pw_gid)
        with open(os.path.join(folder, "conf"), "w") as conf:
            conf.write(NGINX.format(dir=folder, port=net.http, body="x" * 1024))
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s"] + ["-H", "Connection: close"] * (not keep_alive)
    server = ["nginx", "-p", folder, "-c", os.path.join(folder, "conf"), "-e", "stderr"]
    with Server(lab, server_ns, net.http, server) as process:
        relays = net.relays
        before = cpu(relays)
        client = lab.start([*command, f"http://{address}:{net.http}/"], netns=client_ns)
        try:
            if client.wait(seconds + 15):
                raise Failed(f"wrk: {client.errors() or client.output()}")
        finally:
            client.kill()
        relay = cpu(relays) - before
        process.kill(15)
    result = {"relay_seconds": relay, "seconds": float(seconds), "requests": 0, "failed": 0}
    for line in client.output().splitlines():
        words = line.split()
        if "requests in" in line:
            result["requests"] = int(words[0])
            result["seconds"] = float(words[3].rstrip("s,"))
        if "Socket errors" in line or "Non-2xx" in line:
            result["failed"] += sum(int(word.rstrip(",")) for word in words if word.rstrip(",").isdigit())
    return result | rates(result, "requests")


def memories(lab, net, idle, short, settle):
    """Resident memory of the relays in KiB through the life of a fresh network."""
    seen = {}

    def look(when):
        settle()
        seen[when] = memory(net.relays)
        seen[when]["helpers"] = memory(net.helpers())["Pss"]

    look("fresh")
    paths = ["out"] * net.out + ["lo"] * net.ports
    for path in paths:
        try:
            release = idle_flows(lab, net, path, idle)
        except Failed as failed:
            seen[f"idle {path}"] = {"why": str(failed)}
            continue
        look(f"idle {path}")
        release()
        look(f"idle {path} ended")
    for path in paths:
        try:
            result = small(lab, net, path, ["short", SPREAD, short], short / 100)
            look(f"short {path}")
            seen[f"short {path}"] |= result
        except Failed as failed:
            seen[f"short {path}"] = {"why": str(failed)}
    return seen
