"""An HTTP/2 backend on TLS: http2_server.py PORT CHAIN KEY

Echoes each piece of a body as it comes and ends with trailers, as gRPC does; says in `x-te` what
the request's TE was.
"""
import asyncio
import ssl
import sys

import h2.config
import h2.connection
import h2.events


class Device(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.waiting = {}
        self.flush()

    def flush(self):
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data):
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    te = dict(event.headers).get("te", "none")
                    heads = [(":status", "200"), ("content-type", "application/grpc"), ("x-te", te)]
                    self.h2.send_headers(event.stream_id, heads)
                    self.waiting[event.stream_id] = [bytearray(), False]
                case h2.events.DataReceived():
                    self.waiting[event.stream_id][0] += event.data
                    self.h2.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    self.waiting[event.stream_id][1] = True
                case h2.events.StreamReset():
                    self.waiting.pop(event.stream_id, None)
        for number in list(self.waiting):
            self.echo(number)
        self.flush()

    def echo(self, number):
        data, ended = self.waiting[number]
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room == 0:
                return
            self.h2.send_data(number, bytes(data[:room]))
            del data[:room]
        if ended:
            trailers = [("grpc-status", "0"), ("grpc-message", "done")]
            self.h2.send_headers(number, trailers, end_stream=True)
            del self.waiting[number]


async def main(port, chain, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2"])
    server = await asyncio.get_running_loop().create_server(
        Device, "127.0.0.1", port, ssl=context)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
