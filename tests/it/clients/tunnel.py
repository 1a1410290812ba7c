"""Fetches a URL through the gateway's tunnel with libcurl: tunnel.py PROXY h1|h2 USER:PASSWORD CA URL...

Prints one JSON line for each URL: status, status of the CONNECT, protocol, body.
All URLs share one handle, so that h2 tunnels share one connection.
"""
import io
import json
import sys
from urllib.parse import urlsplit

import pycurl

proxy, kind, credential, authority, *urls = sys.argv[1:]
PROXY_H1, PROXY_H2 = 2, 3
gateway = urlsplit(proxy)
curl = pycurl.Curl()
curl.setopt(pycurl.PROXY, proxy)
curl.setopt(pycurl.PROXYTYPE, PROXY_H2 if kind == "h2" else PROXY_H1)
curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
curl.setopt(pycurl.RESOLVE, [f"{gateway.hostname}:{gateway.port}:127.0.0.1"])
curl.setopt(pycurl.PROXY_CAINFO, authority)
curl.setopt(pycurl.CAINFO, authority)
curl.setopt(pycurl.TIMEOUT, 50)
curl.setopt(pycurl.NOPROXY, "")
if credential.startswith("Bearer "):
    curl.setopt(pycurl.PROXYHEADER, [f"Proxy-Authorization: {credential}"])
else:
    curl.setopt(pycurl.PROXYUSERPWD, credential)
for url in urls:
    body, heads = io.BytesIO(), io.BytesIO()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.WRITEDATA, body)
    curl.setopt(pycurl.HEADERFUNCTION, heads.write)
    error = None
    try:
        curl.perform()
    except pycurl.error as failure:
        error = str(failure)
    print(json.dumps({
        "status": curl.getinfo(pycurl.RESPONSE_CODE),
        "connect": curl.getinfo(pycurl.HTTP_CONNECTCODE),
        "connects": curl.getinfo(pycurl.NUM_CONNECTS),
        "heads": heads.getvalue().decode("latin-1"),
        "body": body.getvalue().decode("utf-8", "replace"),
        "error": error,
    }), flush=True)
