"""A WebSocket client that is not ours: websocket.py SCENARIO PORT CA USER:PASSWORD NAME PATH SIZE..."""
import base64
import json
import socket
import ssl
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

scenario, port, authority, credential, name, path, *sizes = sys.argv[1:]


def say(**facts):
    print(json.dumps(facts), flush=True)


def open_it():
    return connect(
        f"wss://{name}:{port}{path}",
        sock=socket.create_connection(("127.0.0.1", int(port)), timeout=50),
        ssl=ssl.create_default_context(cafile=authority),
        server_hostname=name,
        additional_headers={
            "Authorization": "Basic " + base64.b64encode(credential.encode()).decode()},
        compression=None,
        max_size=None,
        open_timeout=50,
        proxy=None,
    )


def echo():
    intact = []
    with open_it() as link:
        for size in map(int, sizes):
            message = bytes(i * 7 % 251 for i in range(min(size, 5000))) * (size // 5000 or 1)
            link.send(message)
            intact.append(link.recv(timeout=50) == message)
        text = "gr\u00fc\u00dfe " * 1000
        link.send(text)
        intact.append(link.recv(timeout=50) == text)
        link.ping().wait(50)
        link.send("close me")
        try:
            link.recv(timeout=50)
        except ConnectionClosed as closed:
            say(intact=intact, close=closed.rcvd.code, reason=closed.rcvd.reason)


def close():
    with open_it() as link:
        link.send("hello")
        link.recv(timeout=50)
        link.close(4001, "enough")


def refused():
    try:
        open_it()
    except InvalidStatus as refusal:
        say(status=refusal.response.status_code, body=refusal.response.body.decode())


def hold():
    with open_it() as link:
        say(status=101)
        try:
            link.recv()
        except ConnectionClosed:
            pass
        say(ended=True)


globals()[scenario]()
