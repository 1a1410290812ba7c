"""A WebSocket server that is not ours: websocket_server.py PORT

Echoes what comes; closes with 4002 on the message "close me". `/refused` is no WebSocket, `/plain`
is a page, `/closes` lists the codes and reasons with which devices closed.
"""
import http
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

closes = []


def page(connection, request):
    if request.path == "/refused":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not here\n")
    if request.path == "/plain":
        return connection.respond(http.HTTPStatus.OK, "a page\n")
    if request.path == "/closes":
        return connection.respond(http.HTTPStatus.OK, "\n".join(closes) + "\n")
    return None


def echo(connection):
    try:
        while True:
            message = connection.recv()
            if message == "close me":
                connection.close(4002, "as asked")
                return
            connection.send(message)
    except ConnectionClosed as closed:
        if closed.rcvd:
            closes.append(f"{closed.rcvd.code} {closed.rcvd.reason}")


serve(echo, "127.0.0.1", int(sys.argv[1]), process_request=page, max_size=None).serve_forever()
