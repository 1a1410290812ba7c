"""HTTP/2 as devices speak it: http2.py SCENARIO PORT CA USER:PASSWORD ARGUMENT...

Prints JSON lines of what came.
"""
import json
import sys

from websockets.frames import Frame, Opcode

from connection import Connection, basic

scenario, port, authority, credential, *arguments = sys.argv[1:]
port = int(port)


def say(**facts):
    print(json.dumps(facts), flush=True)


def site(name):
    return Connection(port, authority, name)


def gateway():
    return site("gw.ravelin.test")


def grpc(name):
    """Says one thing at a time and waits for its echo: nothing may wait for the end of a body."""
    connection = site(name)
    heads = connection.head("POST", "/echo", ("content-type", "application/grpc"),
                            ("te", "trailers"), ("authorization", basic(credential)))
    number = connection.request(heads, end=False)
    stream = connection.answer(number)
    echoed = 0
    for turn in range(5):
        message = f"message {turn}".encode()
        connection.send(number, message)
        already = len(stream.data)
        connection.wait(lambda: len(stream.data) >= already + len(message) or stream.over)
        echoed += stream.data.endswith(message)
    connection.send(number, b"", end=True)
    connection.whole(number)
    say(status=stream.status, heads=stream.heads, trailers=stream.trailers, echoed=echoed,
        ended=stream.ended)


def request(name, method, path, *more):
    """One request for each `name: value`-less run of arguments."""
    connection = site(name)
    fields = [tuple(field.split(": ", 1)) for field in more]
    stream = connection.whole(connection.request(connection.head(method, path, *fields)))
    say(status=stream.status, heads=stream.heads, body=stream.data.decode("utf-8", "replace"))


def websocket(name, path, *sizes):
    connection = site(name)
    heads = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
             (":authority", f"{name}:{port}"), (":path", path), ("sec-websocket-version", "13"),
             ("origin", f"https://{name}:{port}"), ("authorization", basic(credential))]
    number = connection.request(heads, end=False)
    stream = connection.answer(number)
    if stream.status != 200:
        connection.whole(number)
        again = connection.head("GET", "/plain", ("authorization", basic(credential)))
        then = connection.whole(connection.request(again))
        say(status=stream.status, body=stream.data.decode(), then=then.status)
        return
    intact = []
    for size in map(int, sizes):
        message = bytes(i * 7 % 251 for i in range(min(size, 5000))) * (size // 5000 or 1)
        connection.send(number, Frame(Opcode.BINARY, message).serialize(mask=True))
        opcode, payload = frame(connection, stream)
        intact.append(opcode == Opcode.BINARY and payload == message)
    connection.send(number, Frame(Opcode.TEXT, b"close me").serialize(mask=True))
    opcode, payload = frame(connection, stream)
    connection.send(number, Frame(Opcode.CLOSE, payload).serialize(mask=True), end=True)
    connection.whole(number)
    say(status=stream.status, intact=intact, close=int.from_bytes(payload[:2], "big"),
        reason=payload[2:].decode(), is_close=opcode == Opcode.CLOSE, ended=stream.ended)


def frame(connection, stream):
    """The next message; the server may send it in several frames."""
    whole, first = b"", None
    while True:
        data = stream.data
        connection.wait(lambda: len(data) >= 2 or stream.over)
        length, head = data[1] & 0x7f, 2
        if length > 125:
            head = 4 if length == 126 else 10
            connection.wait(lambda: len(data) >= head)
            length = int.from_bytes(data[2:head], "big")
        connection.wait(lambda: len(data) >= head + length)
        opcode, final = data[0] & 0x0f, data[0] & 0x80
        first = first or opcode
        whole += bytes(data[head:head + length])
        del data[:head + length]
        if final:
            return first, whole


def hold(*target):
    """Opens a tunnel, or a WebSocket at NAME PATH, and tells when it ends."""
    if len(target) == 1:
        connection = gateway()
        number = connection.connect(*target, credential)
    else:
        name, path = target
        connection = site(name)
        number = connection.request([
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
            (":authority", f"{name}:{port}"), (":path", path), ("sec-websocket-version", "13"),
            ("authorization", basic(credential))], end=False)
    stream = connection.answer(number)
    say(status=stream.status)
    try:
        connection.whole(number)
    except EOFError:
        pass
    say(ended=True)


def tunnels(echo, flood, deaf, count):
    """Many tunnels on one connection; a stalled one each way must not stop the others."""
    connection = gateway()
    unheard = connection.connect(deaf, credential)
    assert connection.answer(unheard).status == 200
    sent = fill(connection, unheard)
    stalled = connection.connect(flood, credential)
    assert connection.answer(stalled).status == 200
    connection.streams[stalled].reads = False
    window = connection.h2.remote_flow_control_window(stalled)
    while connection.h2.remote_flow_control_window(stalled) > 0:
        connection.pump()
    numbers = [connection.connect(echo, credential) for _ in range(int(count))]
    for number in numbers:
        assert connection.answer(number).status == 200
    intact = 0
    for turn, number in enumerate(numbers):
        block = bytes((i * (turn + 3)) % 253 for i in range(10_000)) * 10
        connection.send(number, block, end=True)
        intact += connection.whole(number).data == block
    say(intact=intact, stalled=len(connection.streams[stalled].data) == window, sent=sent)


def fill(connection, number):
    """Sends until the gateway takes no more; gives how much that was."""
    connection.socket.settimeout(1)
    sent = 0
    try:
        while True:
            connection.send(number, b"u" * 10_000)
            sent += 10_000
    except TimeoutError:
        connection.socket.settimeout(50)
        return sent


def device_closes_first(target):
    """Closes its half, then is answered: the target counts what it got until the end."""
    connection = gateway()
    number = connection.connect(target, credential)
    stream = connection.answer(number)
    connection.send(number, b"x" * 300_000, end=True)
    connection.whole(number)
    say(data=stream.data.decode(), ended=stream.ended, reset=stream.reset)


def target_closes_first(target):
    """Is told the end of the target's half, and then still sends."""
    connection = gateway()
    number = connection.connect(target, credential)
    stream = connection.whole(number)
    connection.send(number, b"y" * 300_000, end=True)
    say(data=stream.data.decode(), ended=stream.ended, reset=stream.reset)
    # Whoever started this closes our input when the target has it all.
    sys.stdin.read()


def is_reset(target):
    connection = gateway()
    number = connection.connect(target, credential)
    stream = connection.answer(number)
    connection.send(number, b"reset me")
    connection.whole(number)
    say(status=stream.status, reset=stream.reset, ended=stream.ended)


def upload(name, path, size, end, *more):
    """Sends `size` bytes of a body and, with `pause`, never the rest."""
    connection = site(name)
    fields = [tuple(field.split(": ", 1)) for field in more]
    number = connection.request(
        connection.head("PUT", path, ("authorization", basic(credential)), *fields), end=False)
    stream = connection.streams[number]
    try:
        connection.send(number, b"z" * int(size), end=end == "end")
    except AssertionError:
        pass
    connection.whole(number)
    say(status=stream.status, body=stream.data.decode(), ended=stream.ended, reset=stream.reset)


globals()[scenario](*arguments)
