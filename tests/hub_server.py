"""A Hub on the loopback interface: enough of its protocol for `huggingface_hub` to download a model folder."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@contextmanager
def hub_with(repositories: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serves folders as models under their names; gives the server's address and the files that are asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def respond(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).removeprefix("/api/models").strip("/")
            for name, folder in repositories.items():
                commit = hashlib.sha1(name.encode()).hexdigest()
                files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
                if path == f"{name}/resolve/{commit}/" + (wanted := path.split(f"{commit}/")[-1]) and wanted in files:
                    if self.command == "GET":
                        asked.append(wanted)
                    body = files[wanted].read_bytes()
                    etag = f'"{hashlib.sha256(body).hexdigest()}"'
                    return self.respond(200, body, ETag=etag, X_Repo_Commit=commit, X_Linked_Size=str(len(body)))
                if path.startswith(f"{name}/tree/"):
                    tree = [{"type": "file", "path": n, "size": f.stat().st_size, "oid": ""} for n, f in files.items()]
                    return self.respond(200, json.dumps(tree).encode(), Content_Type="application/json")
                if path == name or path.startswith(f"{name}/revision/"):
                    model = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
                    return self.respond(200, json.dumps(model).encode(), Content_Type="application/json")
            error = {"X_Error_Code": "RepoNotFound", "X_Error_Message": "no such model"}
            return self.respond(404, b"{}", **error)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
