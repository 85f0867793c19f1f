#!/usr/bin/env python3
"""Dockerfiles by chance, built by us and by a newer buildah (tests/peers): the same files, the same config. Half of them copy
out of random folders (wildcards, destinations, owners, modes, .dockerignore, stages), half of them change a folder in random
ways, RUN after RUN (folders, files, links, removals, renames, owners, modes).

  build_random.py [SEED COUNT]     default: a fixed seed, a few of each

$MLHOST is the program. What buildah does not build is no case; that we refuse to make a file of a folder, or the other way
round, as Docker does, is fine. Prints "N passed, N failed" last.
"""
import os
import random
import re
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import build_trees  # noqa: E402

NAMES = ["a", "b", "c.txt", "d.md", "e.py", "sub", "lib", "x.y", "deep", "foo", "bar.txt", "a.b"]
PLACES = ["/data/", "/tmp", "/tmp/", "/home/app", "/home/app/x", "rel/", "./r/s/", "../up/", "/srv/a/b/c", "/etc/", "/lnk/z", "."]
IMAGE = ["/home/app", "/etc/passwd", "/tmp", "/srv", "/etc/p*", "/home/*", "/usr"]
OWNERS = ["app", "app:staff", "7:8", "9", ":staff"]
REFUSED = re.compile(r"is a folder in the image|is no folder in the image|becomes a file and a folder|and no folder")


def grow(chance, folder, depth=0):
    for name in chance.sample(NAMES, chance.randint(2, 5)):
        path = os.path.join(folder, name)
        if depth < 3 and chance.random() < 0.4:
            os.mkdir(path)
            grow(chance, path, depth + 1)
            if chance.random() < 0.3:
                os.symlink(sorted(os.listdir(path))[0], os.path.join(path, "soft"))
        else:
            with open(path, "w", encoding="utf-8") as f:
                f.write(f"{name} {chance.random()}\n")
            os.chmod(path, chance.choice([0o644, 0o755]))


def copying(chance, context):
    grow(chance, context)
    paths = sorted(os.path.relpath(os.path.join(folder, name), context)
                   for folder, folders, files in os.walk(context) for name in folders + files)

    def pattern():
        parts = chance.choice(paths).split("/")
        kind = chance.random()
        if kind < 0.3:
            parts[-1] = chance.choice(["*", "*.txt", "?", "[a-c]*", "*.*"])
        elif kind < 0.45:
            parts[chance.randrange(len(parts))] = "*"
        return "/".join(parts)

    def copy(stage):
        flags = f" --chown={chance.choice(OWNERS)}" if chance.random() < 0.3 else ""
        flags += f" --chmod={chance.choice(['600', '755', '0751'])}" if chance.random() < 0.25 else ""
        count = 2 if chance.random() < 0.2 else 1
        sources = [chance.choice(IMAGE) if stage else chance.choice(["", "", "", "/", "./"]) + pattern() for _ in range(count)]
        if not stage and chance.random() < 0.15:
            sources = ["."]
        place = chance.choice(PLACES)
        if (count > 1 or any(c in sources[0] for c in "*?[")) and not place.endswith("/"):
            place += "/"
        return f"{'COPY' if stage else chance.choice(['COPY', 'COPY', 'ADD'])}{flags}{stage} {' '.join(sources)} {place}"

    lines = ["FROM ${REGISTRY}/busybox:1 AS one", "WORKDIR " + chance.choice(["/w", "/home/app", "rel/x", "/data/d"])]
    lines += [copy("") for _ in range(chance.randint(2, 5))]
    if chance.random() < 0.6:
        lines.append("FROM ${REGISTRY}/busybox:1")
        if chance.random() < 0.5:
            lines.append("USER " + chance.choice(["app", "5", "app:staff"]))
        lines += [copy(chance.choice([" --from=one", " --from=0", ""])) for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.5:
        lines.append("WORKDIR " + chance.choice(["q", "/q/r", "../z", "/tmp"]))
    if chance.random() < 0.5:
        with open(os.path.join(context, ".dockerignore"), "w", encoding="utf-8") as f:
            for _ in range(chance.randint(1, 5)):
                line = pattern()
                line = "**/" + line.split("/")[-1] if chance.random() < 0.3 else line
                f.write(chance.choice(["", "", "!", "/"]) + line + chance.choice(["", "", "", "/"]) + "\n")
    return lines


def running(chance, context):
    os.makedirs(os.path.join(context, "tree/a/b"))
    for name in ("tree/a/b/c", "tree/d"):
        with open(os.path.join(context, name), "w", encoding="utf-8") as f:
            f.write(name + "\n")

    def path():
        return "/t/" + "/".join(chance.choice("abcd") for _ in range(chance.randint(1, 3)))

    def change():
        one = path()
        return chance.choice([
            f"mkdir -p {one}",
            f"mkdir -p $(dirname {one}); echo {chance.randint(0, 9)} >{one}",
            f"mkdir -p $(dirname {one}); echo more >>{one}",
            f"rm -rf {one}",
            f"rm -f {one}",
            f"mv {one} {path()}",
            f"cp -a {one} {path()}",
            f"chmod {chance.choice(['700', '1777', '2755', '600', '4755'])} {one}",
            f"chown -R {chance.choice(['1:1', 'app:staff', '5'])} {one}",
            f"rm -rf {one}; ln -s {chance.choice(['a', '../b', '/t/c'])} {one}",
            f"rm -rf {one}; mkdir -p {one}; echo new >{one}/new",
        ])

    lines = ["FROM ${REGISTRY}/busybox:1", "COPY tree /t"]
    for _ in range(chance.randint(3, 5)):
        if chance.random() < 0.15:
            lines.append("WORKDIR /t/w")
        changes = "; ".join(change() for _ in range(chance.randint(2, 6)))
        lines.append(f"RUN {{ {changes}; }} 2>/dev/null; true")
    return lines


def compare(trees, case):
    """-> problems, or None when buildah does not build it; 0"""
    failures, _ = trees.one(case, ["buildah"], True)
    return (None, 0) if failures else trees.one(case, ["ours"], False)


def main():
    seed, count = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (5, 8)
    missing = [tool for tool in ("docker-registry", "busybox") if not shutil.which(tool)]
    if missing:
        print("SKIPPED build_random: no", ", ".join(missing))
        print("0 passed, 0 failed")
        return
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        trees = build_trees.Trees(work)
        trees.find_buildah()
        if not trees.buildah:
            print("SKIPPED build_random: no buildah to compare with")
            print("0 passed, 0 failed")
            return
        cases = []
        for number in range(2 * count):
            name = f"{seed}-{number}"
            context = os.path.join(work, "cases", name, "context")
            os.makedirs(context)
            lines = (copying if number % 2 else running)(random.Random(f"{seed} {number}"), context)
            with open(os.path.join(context, "Dockerfile"), "w", encoding="utf-8") as f:
                f.write("\n".join(["ARG REGISTRY", *lines]) + "\n")
            cases.append(build_trees.Case(name, os.path.join(work, "cases")))
        try:
            trees.start(cases)
            for case, (problems, _) in trees.each(cases, lambda case: compare(trees, case)):
                if problems is None:
                    print("     ", case.name, "is no case")
                elif not problems or (len(problems) == 1 and REFUSED.search(problems[0])):
                    passed += 1
                    print("ok   ", case.name)
                else:
                    failed += 1
                    print("FAIL ", case.name)
                    print("\n".join([case.text("context/Dockerfile"), *problems]).replace("\n", "\n  "))
        finally:
            if trees.server:
                trees.server.terminate()
                trees.server.wait()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
