"""A stand-in of the hub on this machine: one data set over HTTP, as far as `datasets` and `huggingface_hub` ask for it.

Answers the revision, the listing and the files themselves (with ranges), so that everything between `load_dataset` and
the socket is the real thing.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


class HubStandIn:
    """Serves ``folder`` as data set ``repo``, at the first of ``commits``; a request of ``/move`` goes to the next one.

    ``asked`` lists the requests.
    """

    def __init__(self, repo: str, folder: Path, commits: list[str]) -> None:
        self.repo, self.folder, self.commit = repo, folder, commits[0]
        self.later = commits[1:]
        self.asked: list[str] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def entries(self) -> list[dict[str, object]]:
        """The listing of files and folders, as the hub's tree API gives it."""
        listed = []
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            entry = {"path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
            if path.is_dir():
                listed.append({**entry, "type": "directory", "size": 0})
            else:
                listed.append({**entry, "type": "file", "size": path.stat().st_size})
        return listed


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        api, files = f"/api/datasets/{self.hub.repo}", f"/datasets/{self.hub.repo}/resolve/"
        if path == "/move":
            self.hub.commit = self.hub.later.pop(0)
            self._json({})
        elif path == api or path.startswith(f"{api}/revision/"):
            names = [{"rfilename": entry["path"]} for entry in self.hub.entries() if entry["type"] == "file"]
            self._json({"id": self.hub.repo, "sha": self.hub.commit, "private": False, "tags": [], "siblings": names})
        elif path.startswith(f"{api}/tree/"):
            below = path.removeprefix(f"{api}/tree/").partition("/")[2]
            is_deep = parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() in ("true", "1")
            self._json([entry for entry in self.hub.entries() if _is_below(str(entry["path"]), below, is_deep)])
        elif path.startswith(f"{api}/paths-info/"):
            asked = parse_qs(body.decode()).get("paths", []) or json.loads(body or b"{}").get("paths", [])
            self._json([entry for entry in self.hub.entries() if entry["path"] in asked])
        elif path.startswith(files) and (self.hub.folder / path.removeprefix(files).partition("/")[2]).is_file():
            self._file(self.hub.folder / path.removeprefix(files).partition("/")[2])
        else:
            self._send(404, b'{"error": "Entry not found"}', {"X-Error-Code": "EntryNotFound"})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, path: Path) -> None:
        data, status, extra = path.read_bytes(), 200, {}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
            extra = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            data, status = data[first : last + 1], 206
        tag = f'"{hashlib.sha1(path.read_bytes()).hexdigest()}"'
        self._send(status, data, {"ETag": tag, "X-Repo-Commit": self.hub.commit, "Accept-Ranges": "bytes", **extra})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _is_below(path: str, folder: str, is_deep: bool) -> bool:
    if folder and not path.startswith(folder + "/"):
        return False
    rest = path[len(folder) + 1 :] if folder else path
    return is_deep or "/" not in rest
