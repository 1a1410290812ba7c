"""One HTTP/2 connection of a device, on the h2 library: for what ready-made clients do not do."""
import base64
import socket
import ssl

import h2.config
import h2.connection
import h2.events
import h2.exceptions


def tls(port, authority, name):
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=50)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname=name)


def basic(credential):
    return "Basic " + base64.b64encode(credential.encode()).decode()


class Stream:
    def __init__(self):
        self.heads, self.trailers, self.data = {}, {}, bytearray()
        self.ended, self.reset = False, None
        # Whether data is acknowledged as it comes; what is not, fills the window.
        self.reads = True

    @property
    def over(self):
        return self.ended or self.reset is not None

    @property
    def status(self):
        return int(self.heads.get(":status", 0))


class Connection:
    def __init__(self, port, authority, name):
        self.name, self.port = name, port
        self.socket = tls(port, authority, name)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        # As browsers do: one stream whose bytes are not taken must leave room for the others.
        self.h2.increment_flow_control_window(1 << 24)
        self.streams, self.closed, self.settled = {}, False, False
        self.flush()
        self.wait(lambda: self.settled)

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def request(self, heads, end=True):
        number = self.h2.get_next_available_stream_id()
        self.streams[number] = Stream()
        self.h2.send_headers(number, heads, end_stream=end)
        self.flush()
        return number

    def head(self, method, path, *more):
        authority = f"{self.name}:{self.port}"
        return [(":method", method), (":scheme", "https"), (":authority", authority),
                (":path", path), *more]

    def connect(self, target, credential):
        heads = [(":method", "CONNECT"), (":authority", target),
                 ("proxy-authorization", basic(credential))]
        return self.request(heads, end=False)

    def send(self, number, data, end=False):
        """Sends all, within the gateway's windows."""
        data = memoryview(data)
        while len(data):
            assert self.streams[number].reset is None, "the gateway reset the stream"
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room == 0:
                self.pump()
                continue
            self.h2.send_data(number, bytes(data[:room]))
            data = data[room:]
            self.flush()
        if end:
            assert self.streams[number].reset is None, "the gateway reset the stream"
            self.h2.end_stream(number)
            self.flush()

    def pump(self):
        """Takes what the gateway sends next."""
        try:
            data = self.socket.recv(1 << 16)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        if not data:
            self.closed = True
            raise EOFError("the gateway closed the connection")
        for event in self.h2.receive_data(data):
            self.handle(event)
        self.flush()

    def handle(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        match event:
            case h2.events.RemoteSettingsChanged():
                self.settled = True
            case h2.events.ResponseReceived():
                stream.heads = dict(event.headers)
            case h2.events.TrailersReceived():
                stream.trailers = dict(event.headers)
            case h2.events.DataReceived():
                stream.data += event.data
                if stream.reads and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                stream.ended = True
            case h2.events.StreamReset():
                stream.reset = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.goaway = int(event.error_code)

    def wait(self, condition):
        while not condition():
            self.pump()

    def answer(self, number):
        stream = self.streams[number]
        self.wait(lambda: stream.heads or stream.over)
        return stream

    def whole(self, number):
        stream = self.streams[number]
        self.wait(lambda: stream.over)
        return stream
