#!/bin/sh
# An answer whose head is cut is a whole answer to Python's http.client, and so to urllib3 and all that
# stands on it. RFC 9112 (section 8) has a message incomplete whose head is. `http.client.parse_headers`
# takes the end of the stream for the empty line; the length that was in the lost part isn't known, and
# the body is what follows up to the end: nothing. A HEAD of an object of 1,000 bytes then tells of none,
# and a GET gives an empty object, both with status 200 and without an error. A proxy or a load balancer
# that dies cuts so. Prints `200 None b''`.
set -eu
python3 - <<'PY'
import http.client
import socket
import threading

server = socket.create_server(("127.0.0.1", 0))


def answer():
    connection, _ = server.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Le")
    connection.close()


threading.Thread(target=answer).start()
client = http.client.HTTPConnection("127.0.0.1", server.getsockname()[1])
client.request("GET", "/")
found = client.getresponse()
print(found.status, found.getheader("Content-Length"), found.read())
PY
