"""A Hub on the loopback interface: enough of its protocol for `huggingface_hub` to push and to download.

It has no xet, as a Hub behind a company's mirror; files go by git's LFS protocol, in one piece or in parts. `Faults`
makes it fail: with a status and a message, or by cutting the connection.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "loopback" * 4
PAGE = 3
"""Files in one answer of a listing: the client has to ask for the others."""
PART = 40_000
"""Bytes; larger files go in parts of this size."""


@dataclass
class Fault:
    """Requests that fail: those whose `METHOD /path` matches, so many times."""

    request: str
    status: int | None
    """None: the connection is cut."""
    message: str = ""
    times: int = 1000


@dataclass
class Repository:
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    """The SHA-256 of each file's bytes."""
    messages: list[str] = field(default_factory=list)


@dataclass
class Hub:
    address: str = ""
    storage: str = ""
    """Where large files are: another server, as the Hub's."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    """By `models/owner/name`."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Files that were downloaded."""
    requests: list[str] = field(default_factory=list)
    uploaded: int = 0
    """Bytes that came by LFS."""

    def create(self, name: str, private: bool) -> Repository:
        repository = self.repositories[name] = Repository(private)
        self.commit(repository, "main", {".gitattributes": b"*.safetensors filter=lfs\n"}, [], "initial commit")
        return repository

    def commit(
        self, repository: Repository, branch: str, files: dict[str, bytes], deleted: list[str], message: str
    ) -> str:
        tree = dict(repository.commits.get(repository.branches.get(branch, ""), {}))
        for path, content in files.items():
            tree[path] = self.add(content)
        tree = {path: blob for path, blob in tree.items() if path not in deleted}
        text = json.dumps([sorted(tree.items()), len(repository.messages), message])
        commit = hashlib.sha1(text.encode()).hexdigest()
        repository.commits[commit], repository.branches[branch] = tree, commit
        repository.messages.append(message)
        return commit

    def add(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        repository = self.repositories[name]
        return {path: self.blobs[blob] for path, blob in repository.commits[repository.branches[branch]].items()}


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".parquet", ".arrow", ".bin"))


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def respond(self, status: int, body: Any = None, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def fail(self, status: int, message: str, code: str = "") -> None:
        headers = {"X_Error_Code": code} if code else {}
        self.respond(status, {"error": message}, X_Error_Message=message, **headers)

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        asked = f"{self.command} {url.path}"
        self.hub.requests.append(asked)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        for fault in self.hub.faults:
            if fault.times and re.search(fault.request, asked):
                fault.times -= 1
                if fault.status is not None:
                    return self.fail(fault.status, fault.message)
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
        authorization = self.headers.get("Authorization")
        self.known = authorization == f"Bearer {TOKEN}"
        if authorization and not self.known:
            return self.fail(401, "Invalid credentials in Authorization header")
        self.route(unquote(url.path))

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def route(self, path: str) -> None:
        if match := re.fullmatch(r"/objects/(\w+)(?:/(\d+))?", path):
            return self.object(match[1], match[2])
        if path == "/complete":
            sent = json.loads(self.body)
            parts = [self.hub.parts.pop((sent["oid"], part["partNumber"])) for part in sent["parts"]]
            return self.store(sent["oid"], b"".join(parts))
        if path == "/api/validate-yaml":
            return self.respond(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve((match[1] or "models/")[:-1], *match.groups()[1:])
        if not self.known and self.command != "GET":
            return self.fail(401, "Invalid username or password.")
        if path == "/api/repos/create":
            return self.create()
        if match := re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch()
        if match := re.fullmatch(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/([^/]+))?(?:/(.+))?", path):
            repository = self.repository(f"{match[1]}/{match[2]}")
            if repository is not None:
                self.api(repository, f"{match[1]}/{match[2]}", match[3] or "revision", match[4] or "main")
            return None
        return self.fail(404, "no such page")

    def repository(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.known):
            self.fail(401 if not self.known else 404, "Repository not found", "RepoNotFound")
            return None
        return found

    def create(self) -> None:
        asked = json.loads(self.body)
        owner = asked.get("organization") or "somebody"
        name = f"{asked.get('type') or 'model'}s/{owner}/{asked['name']}"
        if asked.get("type") == "space" and asked.get("sdk") != "static":
            return self.fail(400, "a Space needs an sdk")
        if owner != "somebody":
            return self.fail(403, "You don't have the rights to create a model under this namespace")
        url = f"{self.hub.address}/{name.removeprefix('models/')}"
        if name in self.hub.repositories:
            return self.respond(409, {"error": "You already created this repo", "url": url})
        self.hub.create(name, asked.get("visibility") == "private" or bool(asked.get("private")))
        return self.respond(200, {"url": url, "name": f"{owner}/{asked['name']}"})

    def batch(self) -> None:
        objects = []
        for each in json.loads(self.body)["objects"]:
            entry = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.blobs:
                place = f"{self.hub.storage}/objects/{each['oid']}"
                upload: dict[str, Any] = {"href": place}
                if each["size"] > PART:
                    numbers = range(1, -(-each["size"] // PART) + 1)
                    header = {"chunk_size": str(PART), **{str(n): f"{place}/{n}" for n in numbers}}
                    upload = {"href": f"{self.hub.address}/complete", "header": header}
                entry["actions"] = {"upload": upload}
            objects.append(entry)
        self.respond(200, {"transfer": "basic", "objects": objects})

    def object(self, digest: str, part: str | None) -> None:
        if self.command != "PUT":
            self.hub.asked.append(self.query["file"])
            return self.respond(200, self.hub.blobs[digest], ETag=f'"{digest}"')
        self.hub.uploaded += len(self.body)
        if part is None:
            return self.store(digest, self.body)
        self.hub.parts[digest, int(part)] = self.body
        return self.respond(200, ETag=f'"{hashlib.md5(self.body).hexdigest()}"')

    def store(self, digest: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != digest:
            return self.fail(400, "not the bytes that were announced")
        self.hub.add(content)
        return self.respond(200)

    def commit_of(self, repository: Repository, revision: str) -> str | None:
        commit = repository.branches.get(revision, revision)
        if commit in repository.commits:
            return commit
        self.fail(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return None

    def api(self, repository: Repository, name: str, what: str, rest: str) -> None:
        revision, _, folder = rest.partition("/")
        if what == "branch":
            if rest in repository.branches:
                return self.fail(409, "Reference already exists")
            start = json.loads(self.body or b"{}").get("startingPoint", "main")
            repository.branches[rest] = repository.branches.get(start, start)
            return self.respond(200)
        if what == "refs":
            items = repository.branches.items()
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in items]
            return self.respond(200, {"branches": branches, "tags": [], "converts": []})
        if what not in ("revision", "tree", "paths-info", "preupload", "commit"):
            return self.fail(404, "no such page")  # xet, among others
        commit = self.commit_of(repository, revision)
        if commit is None:
            return None
        tree = repository.commits[commit]
        if what == "preupload":
            files = []
            for each in json.loads(self.body)["files"]:
                mode, blob = "lfs" if is_large(each["path"]) else "regular", tree.get(each["path"])
                oid = blob if mode == "lfs" or blob is None else git_hash(self.hub.blobs[blob])
                files.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            return self.respond(200, {"files": files})
        if what == "commit":
            return self.write(repository, revision, f"{self.hub.address}/{name.removeprefix('models/')}")
        if what == "revision":
            siblings = [{"rfilename": path} for path in tree]
            own = name.partition("/")[2]
            return self.respond(
                200, {"id": own, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}
            )
        if what == "tree":
            inside = {path: blob for path, blob in tree.items() if not folder or path.startswith(f"{folder}/")}
            if "recursive" not in self.query or self.query["recursive"].lower() == "false":
                depth = len(folder.split("/")) if folder else 0
                folders = {"/".join(path.split("/")[: depth + 1]) for path in inside if path.count("/") > depth}
                entries = [{"type": "directory", "path": path, "oid": ""} for path in sorted(folders)]
                entries += [self.entry(path, blob) for path, blob in inside.items() if path.count("/") == depth]
            else:
                entries = [self.entry(path, blob) for path, blob in inside.items()]
            if folder and not inside:
                return self.fail(404, f"{folder} does not exist", "EntryNotFound")
            start = int(self.query.get("cursor", 0))
            link = {}
            if start + PAGE < len(entries):
                rest = "&".join(f"{n}={v}" for n, v in self.query.items() if n != "cursor")
                address = f"{self.hub.address}{urlsplit(self.path).path}?{rest}&cursor={start + PAGE}"
                link = {"Link": f'<{address}>; rel="next"'}
            return self.respond(200, entries[start : start + PAGE], **link)
        paths = parse_qs(self.body.decode()).get("paths") or json.loads(self.body)["paths"]
        found: list[dict[str, Any]] = [self.entry(path, tree[path]) for path in paths if path in tree]
        for path in paths:
            if path not in tree and any(other.startswith(f"{path}/") for other in tree):
                found.append({"type": "directory", "path": path, "oid": ""})
        return self.respond(200, found)

    def entry(self, path: str, blob: str) -> dict[str, Any]:
        size = len(self.hub.blobs[blob])
        found = {"type": "file", "path": path, "size": size, "oid": git_hash(self.hub.blobs[blob])}
        return {**found, "lfs": {"oid": blob, "size": size, "pointerSize": 130}} if is_large(path) else found

    def write(self, repository: Repository, branch: str, where: str) -> None:
        header, files, deleted = {}, {}, []
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    return self.fail(400, f"{value['path']} was never uploaded")
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                deleted.append(value["path"])
        commit = self.hub.commit(repository, branch, files, deleted, header["summary"])
        return self.respond(200, {"success": True, "commitOid": commit, "commitUrl": f"{where}/commit/{commit}"})

    def resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repository = self.repository(f"{kind}/{name}")
        commit = None if repository is None else self.commit_of(repository, revision)
        if repository is None or commit is None:
            return None
        blob = repository.commits[commit].get(path)
        if blob is None:
            message = f"{path} does not exist"
            return self.respond(404, b"", X_Error_Code="EntryNotFound", X_Error_Message=message, X_Repo_Commit=commit)
        content = self.hub.blobs[blob]
        headers = {"X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if is_large(path):
            where = f"{self.hub.storage}/objects/{blob}?file={path}"
            linked = {"X_Linked_Etag": f'"{blob}"', "X_Linked_Size": str(len(content))}
            return self.respond(302, b"", Location=where, **linked, **headers)
        if self.command == "GET":
            self.hub.asked.append(path)
        return self.respond(200, content, ETag=f'"{git_hash(content)}"', **headers)


@contextmanager
def loopback_hub() -> Iterator[Hub]:
    """An empty Hub, whose one user is called somebody and has `TOKEN`."""
    hub = Hub()
    kind = type("HandlerOfOne", (Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), kind) for _ in range(2)]
    hub.address, hub.storage = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@contextmanager
def hub_with(repositories: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serves folders as models under their names; gives the server's address and the files that are asked for."""
    with loopback_hub() as hub:
        for name, folder in repositories.items():
            files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
            hub.commit(hub.create(f"models/{name}", private=False), "main", files, [], "upload")
        yield hub.address, hub.asked
