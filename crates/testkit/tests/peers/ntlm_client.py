"""Asks once for a URL, signed in by pyspnego, and prints the status, the proof's last word and the number of lines of the body.

usage: ntlm_client.py URL ntlm|negotiate USER PASSWORD [CERTIFICATE.pem]
"""

import base64
import hashlib
import http.client
import ssl
import sys
import urllib.parse

import spnego
from spnego.channel_bindings import GssChannelBindings


def main():
    url, protocol, user, password = sys.argv[1:5]
    url = urllib.parse.urlsplit(url)
    bindings = None
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=sys.argv[5])
        connection = http.client.HTTPSConnection(url.netloc, context=context, timeout=60)
        connection.connect()
        digest = hashlib.sha256(connection.sock.getpeercert(binary_form=True)).digest()
        bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + digest)
    else:
        connection = http.client.HTTPConnection(url.netloc, timeout=60)
    client = spnego.client(
        user, password, hostname=url.hostname, service="http", protocol=protocol,
        channel_bindings=bindings,
        options=spnego.NegotiateOptions.use_ntlm if protocol == "negotiate" else spnego.NegotiateOptions.none,
    )
    scheme = {"ntlm": "NTLM", "negotiate": "Negotiate"}[protocol]
    token, status, lines = client.step(), 0, 0
    for _ in range(4):
        header = f"{scheme} {base64.b64encode(token).decode()}"
        connection.request("GET", f"{url.path}?{url.query}", headers={"Authorization": header})
        answer = connection.getresponse()
        status, lines = answer.status, answer.read().count(b"\r\n")
        words = (answer.headers.get("WWW-Authenticate") or "").split(" ", 1)
        if len(words) == 2 and words[0] == scheme and not client.complete:
            token = client.step(base64.b64decode(words[1]))
            if token is None:
                break
        else:
            break
    print(status, "complete" if client.complete else "open", lines)


main()
