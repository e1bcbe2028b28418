"""Resolves names as a client of TF Hub's does, with no network but this machine's.

Runs on Python 3.6 and newer. Called with the client's module, a JSON file that lists the names, and the JSON file to
write: each name with the path that it has, or what was said about it.
"""

import json
import os
import socket
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


HERE = "127.0.0.1"
connect = socket.socket.connect
getaddrinfo = socket.getaddrinfo


def connect_here(self, address):
    """Connects to this machine and to no other."""
    if address[0] != HERE:
        raise OSError("there is no network")
    return connect(self, address)


def find_here(host, *arguments, **keywords):
    """Knows the address of this machine and of no other."""
    if host != HERE:
        raise OSError("there is no network")
    return getaddrinfo(host, *arguments, **keywords)


socket.socket.connect = connect_here
socket.getaddrinfo = find_here


def resolver_of(client):
    """Returns what a client resolves names with."""
    if client == "kagglehub":
        import kagglehub

        return kagglehub.model_download
    import tensorflow_hub

    if hasattr(tensorflow_hub, "resolve"):
        return tensorflow_hub.resolve
    from tensorflow_hub import registry  # As hub.Module does, in all versions.

    return registry.resolver


def main(client, names_file, results_file):
    """Resolves every name."""
    with open(names_file) as file:
        names = json.load(file)
    resolve = resolver_of(client)
    results = {}
    for name in names:
        try:
            results[name] = {"path": resolve(name)}
        except Exception as error:
            results[name] = {"error": f"{type(error).__name__}: {error}"}
    with open(results_file, "w") as file:
        json.dump(results, file)


main(*sys.argv[1:])
