"""The throw-away users of the suite, and the folder that goes with them, for as long as a benchmark runs."""

import glob
import os
import pwd
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))


def say(text):
    print(text, file=sys.stderr, flush=True)


def built():
    """This tree's release build that was made last."""
    target = os.path.join(ROOT, os.environ.get("CARGO_TARGET_DIR", "target"))
    return max(glob.glob(f"{target}/*/release/rcon") + glob.glob(f"{target}/release/rcon"), key=os.path.getmtime)


def release(path=None):
    """The program to measure: PATH, or this tree's release build, which is made now if need be."""
    if not path:
        subprocess.run(["cargo", "build", "--release", "--package", "rcon"], cwd=ROOT, check=True)
        path = built()
    if not os.access(path, os.X_OK):
        sys.exit(f"{path} is no program")
    return os.path.realpath(path)


def version(rcon):
    return subprocess.run([rcon, "--version"], capture_output=True, text=True, check=True).stdout.strip()


class Work:
    """A folder that goes at the end; as root, with the suite's two users (rcontest with subordinate ids, rcontest1 without)."""

    def __init__(self, rcon):
        self.path = tempfile.mkdtemp(prefix="rcon-bench.", dir="/var/tmp")
        self.root = os.geteuid() == 0
        self.rcon = os.path.join(self.path, "rcon")
        self.source, self.keeper = rcon, None

    def __enter__(self):
        if self.root:
            self.keeper = subprocess.Popen([os.path.join(ROOT, "tests/lab/hold"), self.path], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, text=True)  # fmt: skip
            if self.keeper.stdout.readline().strip() != "ready":
                sys.exit("the users for the benchmark could not be made")
        os.chmod(self.path, 0o755)
        shutil.copy(self.source, self.rcon)
        os.chmod(self.rcon, 0o755)
        return self

    def __exit__(self, *_):
        if self.keeper:
            self.keeper.stdin.close()
            self.keeper.wait()
        else:
            # podman has folders that nobody may write in.
            subprocess.run(["chmod", "-R", "u+rwX", self.path], stderr=subprocess.DEVNULL, check=False)
            shutil.rmtree(self.path, ignore_errors=True)

    def folder(self, name, user=None, mode=0o755):
        path = os.path.join(self.path, name)
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
        if user and self.root:
            who = pwd.getpwnam(user)
            os.chown(path, who.pw_uid, who.pw_gid)
        return path

    def environment(self, user):
        """What a user of ours has, with a home and a runtime directory of his own."""
        home = self.folder(f"home-{user}", user, 0o700)
        # podman takes no runtime directory whose name is much longer.
        runtime = self.folder("run1" if user == "rcontest1" else "run", user, 0o700)
        return {"PATH": os.environ["PATH"], "HOME": home, "USER": user, "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": runtime,
                "TMPDIR": home}  # fmt: skip

    def becoming(self, user):
        """The words that make a command the user's; nothing where we are no root and can only be ourselves."""
        if not self.root:
            return []
        who = pwd.getpwnam(user)
        return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", "--inh-caps=-all"]

    def busybox(self, own, name):
        """Has `own` (a call of the program with words) import an image of busybox alone."""
        busybox = shutil.which("busybox") or sys.exit("busybox is missing: apt-get install busybox-static")
        files = self.folder("files/bin")
        shutil.copy(busybox, os.path.join(files, "busybox"))
        for link in ("sh", "true", "sleep"):
            os.symlink("busybox", os.path.join(files, link))
        archive = os.path.join(self.path, "files.tar")
        subprocess.run(["tar", "-C", os.path.dirname(files), "--owner=0", "--group=0", "-cf", archive, "."], check=True)
        own("import", "-q", archive, name)
