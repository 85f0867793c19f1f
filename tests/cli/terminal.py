"""A program on a pseudo-terminal, as a person sees and types."""
import os
import pty
import re
import select
import signal
import termios
import time

SANITIZERS = {name: value for name, value in os.environ.items() if name in ("ASAN_OPTIONS", "UBSAN_OPTIONS")}
PROGRAM = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))


class Terminal:
    """A program on a terminal: what it shows is read until a pattern is there."""

    def __init__(self, folder, *argv, under=()):
        self.shown = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            env = {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": folder, "NO_COLOR": "1", **SANITIZERS}
            words = [*under, PROGRAM, *argv]
            os.execve(words[0], words, env)

    def until(self, pattern, seconds=20):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.shown):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise AssertionError(f"no /{pattern}/ in {self.shown!r}")
            try:
                text = os.read(self.fd, 65536).decode("utf-8", "replace")
                self.shown += re.sub(r"\r|\x1b\[[0-9;?]*[a-zA-Z]", "", text)  # what is drawn, not how
            except OSError:
                raise AssertionError(f"ended without /{pattern}/: {self.shown!r}") from None
        found = re.search(pattern, self.shown)
        self.shown = self.shown[found.end():]
        return found

    def at_prompt(self):
        """Until the keys are the editor's: what is typed earlier, the terminal itself echoes."""
        self.until(r"> ")
        self.echo_is_off()

    def echoes(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def echo_is_off(self):
        end = time.monotonic() + 20
        while self.echoes() and time.monotonic() < end:
            time.sleep(0.01)

    def type(self, text):
        os.write(self.fd, text.encode())

    def ended(self):
        """Its exit status, once it has ended."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            try:
                if select.select([self.fd], [], [], 0.05)[0]:
                    self.shown += os.read(self.fd, 65536).decode("utf-8", "replace")
            except OSError:  # it has closed the terminal and is about to end
                time.sleep(0.05)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("it does not end")
