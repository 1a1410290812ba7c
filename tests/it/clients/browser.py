"""Drives headless Chromium by its DevTools protocol.

browser.py JSON, with: url, arguments (of Chromium), proxy_login [user, password],
fill {selector: text}, click selector, width, scheme, screenshot path, script.
Prints one JSON line: title, url, text of the page, html, status, the script's value.
"""
import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import websockets

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
BASE = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-dev-shm-usage", "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]


class Page:
    def __init__(self, socket):
        self.socket, self.number, self.answers, self.events = socket, 0, {}, asyncio.Queue()

    async def listen(self):
        async for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            else:
                self.events.put_nowait(message)

    async def ask(self, method, **params):
        self.number += 1
        answer = self.answers[self.number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        message = await asyncio.wait_for(answer, 60)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    async def value(self, script):
        result = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")


async def until_loaded(page, todo, seen):
    """Waits for the load event; answers the proxy's questions meanwhile."""
    asked = 0
    while True:
        event = await asyncio.wait_for(page.events.get(), 60)
        method, params = event["method"], event.get("params", {})
        if method == "Fetch.authRequired":
            asked += 1
            login = todo.get("proxy_login")
            if login and asked <= 3:
                reply = {"response": "ProvideCredentials", "username": login[0], "password": login[1]}
            else:
                reply = {"response": "CancelAuth"}
            asyncio.ensure_future(page.ask("Fetch.continueWithAuth", requestId=params["requestId"], authChallengeResponse=reply))
        elif method == "Fetch.requestPaused":
            asyncio.ensure_future(page.ask("Fetch.continueRequest", requestId=params["requestId"]))
        elif method == "Network.responseReceived" and params.get("type") == "Document":
            seen["status"] = params["response"]["status"]
            seen["protocol"] = params["response"].get("protocol")
            seen["headers"] = params["response"]["headers"]
        elif method == "Network.loadingFailed" and params.get("type") == "Document":
            seen["failed"] = params["errorText"]
        elif method == "Page.loadEventFired":
            return


async def drive(address, todo):
    async with websockets.connect(address, max_size=None) as socket:
        page = Page(socket)
        listening = asyncio.ensure_future(page.listen())
        for domain in ("Page", "Network", "Runtime"):
            await page.ask(f"{domain}.enable")
        await page.ask("Fetch.enable", handleAuthRequests=True)
        if "width" in todo:
            await page.ask("Emulation.setDeviceMetricsOverride", width=todo["width"], height=844,
                           deviceScaleFactor=1, mobile=todo["width"] < 600)
        if "scheme" in todo:
            await page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": todo["scheme"]}])
        seen = {}
        asyncio.ensure_future(page.ask("Page.navigate", url=todo["url"]))
        await until_loaded(page, todo, seen)
        for selector, text in todo.get("fill", {}).items():
            await page.value(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}")
        if "click" in todo:
            await page.value(f"document.querySelector({json.dumps(todo['click'])}).click()")
            await until_loaded(page, todo, seen)
        seen["value"] = await page.value(todo["script"]) if "script" in todo else None
        seen["title"] = await page.value("document.title")
        seen["url"] = await page.value("location.href")
        seen["text"] = await page.value("document.body.innerText")
        seen["html"] = await page.value("document.documentElement.outerHTML")
        if "screenshot" in todo:
            shot = await page.ask("Page.captureScreenshot", format="png")
            with open(todo["screenshot"], "wb") as file:
                file.write(base64.b64decode(shot["data"]))
        listening.cancel()
        return seen


async def main():
    todo = json.loads(sys.argv[1])
    # In memory where there is such a place: a fresh profile is thousands of small writes.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    profile = tempfile.mkdtemp(prefix="ravelin-chromium-", dir=memory)
    process = subprocess.Popen(
        [CHROMIUM, *BASE, f"--user-data-dir={profile}", *todo.get("arguments", []), "about:blank"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "HOME": profile})
    try:
        port = None
        for line in process.stderr:
            found = re.search(rb"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line)
            if found:
                port = int(found.group(1))
                break
        # Nobody else reads what Chromium says; a full pipe would stop it.
        asyncio.get_running_loop().run_in_executor(None, process.stderr.read)
        import urllib.request
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list"))
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        print(json.dumps(await drive(address, todo)), flush=True)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


asyncio.run(main())
