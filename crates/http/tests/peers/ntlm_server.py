"""A small HTTP server that signs in by pyspnego's NTLM acceptor, one sign-in per connection.

    ntlm_server.py --offer NTLM[,Negotiate] --users FILE [--cert PEM --key PEM] [--close] [--forget]

Prints its port as the first line. `GET /log` needs no sign-in and tells, as JSON, what came in so far.
"""

import argparse
import base64
import hashlib
import json
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import spnego
from spnego._ntlm_raw.messages import Authenticate, AvId, NTClientChallengeV2
from spnego.channel_bindings import GssChannelBindings

PIECE = bytes(range(256)) * 4096

seen = {"connections": 0, "requests": [], "type1": 0, "type3": 0, "bound": 0, "signed_in": 0}
lock = threading.Lock()


def count(name):
    with lock:
        seen[name] += 1


def bindings(cert):
    if not cert:
        return None
    with open(cert) as file:
        der = ssl.PEM_cert_to_DER_cert(file.read())
    return GssChannelBindings(application_data=b"tls-server-end-point:" + hashlib.sha256(der).digest())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else the head goes out in a packet of its own and waits for its acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        count("connections")
        self.context = None
        self.user = None

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def serve(self):
        body = self.body()
        if self.path == "/log":
            with lock:
                return self.answer(200, json.dumps(seen).encode())
        with lock:
            seen["requests"].append(f"{self.command} {self.path}")
        if self.command == "POST" and "Content-Length" not in self.headers and "Transfer-Encoding" not in self.headers:
            return self.answer(411, b"length wanted")
        authorization = self.headers.get("Authorization")
        if authorization:
            if not self.sign_in(authorization):
                return None
        elif self.user is None:
            return self.refuse()
        return self.serve_signed_in(body)

    do_GET = do_POST = do_HEAD = serve

    def refuse(self, token=None, used=None, body=b"<html><body><h1>401</h1> Access is denied.</body></html>"):
        headers = [("WWW-Authenticate", scheme) for scheme in options.offer if scheme != used]
        if used:
            headers.append(("WWW-Authenticate", f"{used} {base64.b64encode(token).decode()}" if token else used))
        if options.close:
            headers.append(("Connection", "close"))
            self.close_connection = True
        self.answer(401, body, headers)

    def sign_in(self, authorization):
        scheme, _, token = authorization.partition(" ")
        if scheme not in options.offer:
            return self.refuse()
        token = base64.b64decode(token)
        at = token.find(b"NTLMSSP\0")
        kind = token[at + 8] if at >= 0 else None
        if kind == 1:
            count("type1")
            protocol = "ntlm" if scheme == "NTLM" else "negotiate"
            only = spnego.NegotiateOptions.use_negotiate | spnego.NegotiateOptions.use_ntlm
            self.context = spnego.server(protocol=protocol, options=only, channel_bindings=bound_to)
        elif kind == 3:
            count("type3")
            if at >= 0 and self.is_bound(token[at:]):
                count("bound")
            elif bound_to:
                # pyspnego itself lets a sign-in without bindings pass.
                return self.refuse()
        if self.context is None:
            return self.refuse()
        try:
            out = self.context.step(token)
        except spnego.exceptions.SpnegoError:
            self.context = None
            return self.refuse()
        if not self.context.complete:
            return self.refuse(out, scheme)
        if not options.forget:
            self.user = self.context.client_principal
        count("signed_in")
        return True

    @staticmethod
    def is_bound(message):
        response = Authenticate.unpack(message).nt_challenge_response
        value = NTClientChallengeV2.unpack(response[16:]).av_pairs.get(AvId.channel_bindings, bytes(16))
        return value != bytes(16)

    def serve_signed_in(self, body):
        path, _, query = self.path.partition("?")
        if path == "/hello":
            return self.answer(200, f"hello {self.user}".encode())
        if path == "/echo":
            return self.answer(200, f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode())
        if path == "/denied":
            return self.refuse(body=b"<p>The permissions are insufficient. (rsAccessDenied)</p>")
        if path == "/forbidden":
            return self.answer(403, b"no")
        if path == "/away":
            return self.answer(302, b"", [("Location", "/hello")])
        if path == "/big":
            left = int(query)
            self.send_response(200)
            self.send_header("Content-Length", str(left))
            self.end_headers()
            while left:
                piece = PIECE[:left]
                self.wfile.write(piece)
                left -= len(piece)
            return None
        return self.answer(404, b"nothing here")


parser = argparse.ArgumentParser()
parser.add_argument("--offer", type=lambda text: text.split(","), required=True)
parser.add_argument("--users", required=True)
parser.add_argument("--cert")
parser.add_argument("--key")
parser.add_argument("--close", action="store_true", help="close the connection with every 401")
parser.add_argument("--forget", action="store_true", help="want a sign-in for every request")
options = parser.parse_args()
os.environ["NTLM_USER_FILE"] = options.users
bound_to = bindings(options.cert)
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
if options.cert:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(options.cert, options.key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
