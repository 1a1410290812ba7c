"""A person at w3m: opens URL, types USER and PASSWORD into the form, sends it.

text_browser.py URL USER PASSWORD CA. Prints the screen before and after, without
its blanks: w3m moves the cursor over some of them.
"""
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

URL, USER, PASSWORD, CA = sys.argv[1:]


class Terminal:
    def __init__(self, command):
        self.child, self.screen = pty.fork()
        if self.child == 0:
            os.environ.update(TERM="vt100", LC_ALL="C")
            os.execvp(command[0], command)
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        self.text = ""

    def wait_for(self, words, again=""):
        """Everything shown since the last wait, once it has these words."""
        deadline = time.monotonic() + 50
        while words not in plain(self.text):
            ready, _, _ = select.select([self.screen], [], [], 1)
            if not ready:
                if time.monotonic() > deadline:
                    sys.exit(f"never saw {words!r} in:\n{plain(self.text)}")
                self.type(again)
                continue
            try:
                self.text += os.read(self.screen, 65536).decode("utf-8", "replace")
            except OSError:
                sys.exit(f"w3m ended:\n{plain(self.text)}")
        seen, self.text = plain(self.text), ""
        return seen

    def type(self, keys):
        os.write(self.screen, keys.encode())


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|[\s\0]", "", text)


w3m = Terminal([
    "w3m", "-cookie", "-o", "ssl_verify_server=1", "-o", f"ssl_ca_file={CA}",
    "-o", "use_proxy=0", URL,
])
print(w3m.wait_for("Password["))
w3m.type("\t\r")
w3m.wait_for("TEXT:")
w3m.type(USER + "\r")
w3m.wait_for(USER)
w3m.type("\t\r")
w3m.wait_for("Password:")
w3m.type(PASSWORD + "\r")
w3m.wait_for("*")
w3m.type("\t\r")
print("---- after ----")
w3m.wait_for("HTTP/1.1200OK")
# Only what changed was drawn: Ctrl-L draws all of it.
print(w3m.wait_for("Logout<", again="\x0c"))
w3m.type("Q")
