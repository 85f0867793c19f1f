#!/usr/bin/env python3
"""A disk that takes no more: at every single operation of the host (by a library that is loaded into it), and for real, on a small tmpfs
that has room for 0, 1, 2 ... pages. The run ends by itself, says which file and what to do, loses nothing that it reported done; when there
is room again, --resume gives what an undisturbed run gives. The same for disks with faults, read-only ones, and folders of somebody else."""
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from faults import Score, Server, Work, build_preload, journal_order  # noqa: E402

score = Score()
server = Server()
ENOSPC, EIO, EROFS, EACCES = 28, 5, 30, 13
WORDS = {ENOSPC: ("No space left on device", "make room"), EIO: ("Input/output error", "dmesg"),
         EROFS: ("Read-only file system", "mount it"), EACCES: ("Permission denied", "owner")}


def effects(run):
    return {key.split("/", 1)[1]: value for key, value in server.made.items() if key.startswith(run + "/")}


def reported(output):
    """Cells that the host said to be done."""
    return set(re.findall(r"^[0-9:]{8} \[(.*)\] (?:ok in|skipped)", output, re.M))


def kept(work):
    return {event["stage"] for event in work.journal() if event["t"] == "stage_end" and event["status"] in ("ok", "skipped")}


def cause(output, error):
    """The line that says what went wrong must name a file, and a hint what to do."""
    what, hint = WORDS[error]
    problems = []
    if not re.search(r"(/[^ :]+|log\.txt|report\.md|plan\.json).*" + what, output):
        problems.append(f"no file with '{what}'")
    if hint not in output:
        problems.append(f"no hint with '{hint}'")
    return problems


def go_on(work, wanted):
    """With room again."""
    begun = work.runs() and os.path.exists(os.path.join(work.run_folder(), "plan.json"))
    status, output = work.run(*(["a.lua", "--resume", work.runs()[-1]] if begun else ["a.lua"]))
    problems = journal_order(work.journal())
    if status != 0 or work.ends() != wanted["ends"]:
        problems.append(f"afterwards: exit status {status}, ends {work.ends()} instead of {wanted['ends']}")
    if effects(work.runs()[-1]) != wanted["effects"]:
        problems.append(f"effects {effects(work.runs()[-1])}")
    return problems, output


def check(work, wanted, error, status, output, faulty):
    """What a run that met a fault must have said; `faulty`: it must not have ended well."""
    problems = []
    if status is None:
        return ["it hung"]
    if status < 0 or "core dumped" in output:
        problems.append(f"crashed: {status}")
    if status == 0 and faulty:
        problems.append("it says that all is well")
    if status != 0 or "not whole" in output:
        problems += cause(output, error)
    if work.runs():
        lost = reported(output) - kept(work)
        if lost:
            problems.append(f"reported done, but not in the journal: {lost}")
    more, _ = go_on(work, wanted)
    return problems + more


def undisturbed(parent, library):
    work = Work(parent, server)
    count = os.path.join(parent, "count")
    status, output = work.run("a.lua", LD_PRELOAD=library, FAULT_FAIL=f"{ENOSPC}:0", FAULT_COUNT=count,
                              FAULT_UNDER=os.path.join(work.folder, ".mlhost"))
    with open(count, encoding="ascii") as file:
        writes, operations = map(int, file.read().split())
    wanted = {"ends": work.ends(), "effects": effects(work.runs()[-1]), "operations": operations}
    score.case(f"an undisturbed run: {operations} operations on the disk, {writes} of them events",
               [] if status == 0 and operations > writes > 30 else [status], output)
    return wanted


def at_operation(parent, library, wanted, error, n):
    work = Work(parent, server)
    status, output = work.run("a.lua", LD_PRELOAD=library, FAULT_FAIL=f"{error}:{n}", FAULT_UNDER=os.path.join(work.folder, ".mlhost"))
    # The very last operations may be those of a log, which a run outlives; the number of operations varies by a few.
    problems = check(work, wanted, error, status, output, n <= wanted["operations"] * 3 // 4)
    if not problems:
        work.drop()
    return f"operation {n} fails with {WORDS[error][0]}", problems, output


class Small:
    """A tmpfs, in a mount namespace of ours (see main)."""

    def __init__(self, parent, size):
        self.folder = tempfile.mkdtemp(dir=parent)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", self.folder], check=True)

    def free(self):
        status = os.statvfs(self.folder)
        return status.f_bavail

    def leave(self, pages):
        """Fills all but so many pages."""
        filler = os.path.join(self.folder, "filler")
        with open(filler, "wb") as file:
            file.truncate(0)
            os.posix_fallocate(file.fileno(), 0, (self.free() - pages) * 4096)
        return filler

    def close(self):
        subprocess.run(["umount", "-l", self.folder], check=True)
        os.rmdir(self.folder)


def used_by_a_run(parent):
    disk = Small(parent, "4m")
    before = disk.free()
    work = Work(disk.folder, server)
    work.run("a.lua")
    pages = before - disk.free()
    disk.close()
    return pages


def with_room_for(parent, wanted, pages):
    disk = Small(parent, "4m")
    work = Work(disk.folder, server)
    filler = disk.leave(pages)
    status, output = work.run("a.lua")
    os.unlink(filler)
    problems = check(work, wanted, ENOSPC, status, output, False)
    disk.close()
    return f"a disk with room for {pages} pages (exit status {status})", problems, output


def read_only(parent, wanted):
    disk = Small(parent, "4m")
    work = Work(disk.folder, server)
    subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)
    status, output = work.run("a.lua")
    problems = cause(output, EROFS) + ([] if status == 1 else [f"exit status {status}"])
    subprocess.run(["mount", "-o", "remount,rw", disk.folder], check=True)
    score.case("a read-only file system", problems + check(work, wanted, EROFS, status, output, True), output)
    # A run that was begun, and that cannot go on where it is.
    work.run("a.lua")
    subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)
    status, output = work.run("a.lua", "--resume", work.runs()[-1])
    score.case("resume on a read-only file system", cause(output, EROFS) + ([] if status == 1 else [f"exit status {status}"]), output)
    status, output = work.command("runs")
    score.case("its runs can be read", [] if status == 0 and work.runs()[-1] in output else [status], output)
    status, output = work.command("logs", work.runs()[-1], "build")
    score.case("its logs can be read", [] if status == 0 and "building a" in output else [status], output)
    disk.close()


def somebody_elses(parent, wanted):
    """As a user who may read the folder, not write it."""
    work = Work(parent, server)
    os.chmod(parent, 0o755)
    os.chmod(work.folder, 0o755)
    os.chmod(os.path.join(work.folder, "a.lua"), 0o644)
    if os.geteuid() != 0 or subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", "true"], check=False,
                                           stderr=subprocess.DEVNULL).returncode != 0:
        print("SKIPPED a folder of somebody else: this user cannot become another one")
        return
    program = os.environ.get("MLHOST", "build/mlhost")
    if subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", os.path.abspath(program), "version"], check=False,
                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        print("SKIPPED a folder of somebody else: the program is in a folder that others cannot read")
        return
    done = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", os.path.abspath(program), "run", "a.lua", "-o", "plain"],
                          cwd=work.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60, check=False)
    score.case("a folder of somebody else", check(work, wanted, EACCES, done.returncode, done.stdout, True), done.stdout)


def every_operation(parent, library, wanted):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(at_operation, parent, library, wanted, ENOSPC, n) for n in range(1, wanted["operations"] + 1)]
        # The errno is only a word to the host: a few places are enough for the others.
        jobs += [pool.submit(at_operation, parent, library, wanted, error, n)
                 for error in (EIO, EROFS, EACCES) for n in range(1, wanted["operations"], 7)]
        for job in jobs:
            score.case(*job.result(), quiet=True)
    print(f"     {len(jobs)} operations failed", flush=True)


def small_disks(parent, wanted):
    pages = used_by_a_run(parent)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        ended = [job.result() for job in [pool.submit(with_room_for, parent, wanted, n) for n in range(pages + 1)]]
    for one in ended:
        score.case(*one, quiet=True)
    full = [name for name, _, _ in ended if "status 0" not in name]
    score.case(f"{len(full)} of {len(ended)} small disks ended their run", [] if len(full) > len(ended) / 4 else full)


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as parent:
        library = build_preload(parent)
        wanted = undisturbed(parent, library)
        every_operation(parent, library, wanted)
        if os.environ.get("FAULTS_MOUNTS"):
            small_disks(parent, wanted)
            read_only(parent, wanted)
        else:
            print("SKIPPED disks that are full for real: no mount namespace can be had here")
        somebody_elses(parent, wanted)
        print(f"     {time.monotonic() - started:.0f} s", flush=True)
    return score.close()


if "FAULTS_MOUNTS" not in os.environ:
    # Mounts that nobody else sees, and that end with us.
    private = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mounted = subprocess.run([*private, "sh", "-c", "mount -t tmpfs none /mnt"], check=False, stderr=subprocess.DEVNULL).returncode == 0
    os.environ["FAULTS_MOUNTS"] = "1" if mounted else ""
    if mounted:
        os.execvp(private[0], [*private, sys.executable, os.path.abspath(__file__)])
started = time.monotonic()
sys.exit(main())
