"""A stand-in for a W&B server on loopback, for tests that drive the real client online.

It keeps what a client uploads (history, summary, configuration, files, artifacts, exit codes) as plain data and answers
the GraphQL operations that wandb 0.31 needs for that. Any key of 40 characters is accepted.
"""

import base64
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DATE = "2026-01-01T00:00:00Z"
KEY = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class ServerRun:
    """What was uploaded for one run.

    Attributes:
        name: the display name.
        history: one mapping per row, in the order of their line numbers.
        files: what was uploaded, by name.
        exit_codes: one for each time that the run was finished.
        resumed: how often a client has continued it.
        is_preempting: whether its client has announced that it will be stopped.
    """

    id: str
    name: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    resumed: int = 0
    is_preempting: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history in order."""
        return [row for _, row in sorted(self.history.items())]

    def stream(self, body: dict[str, Any]) -> None:
        """Take what `file_stream` brings."""
        for name, chunk in body.get("files", {}).items():
            for number, line in enumerate(chunk["content"], start=chunk.get("offset", 0)):
                if name == "wandb-history.jsonl":
                    self.history[number] = json.loads(line)
                elif name == "wandb-summary.json":
                    self.summary = json.loads(line)
        self.is_preempting |= bool(body.get("preempting"))
        if body.get("complete"):
            self.exit_codes.append(body["exitcode"])


class WandbServer(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1.

    Attributes:
        runs: by their ids.
        operations: the GraphQL operations in the order of their requests.
        dies_after: how many requests are answered; None for all. Later ones get no answer.
        hangs: whether those wait for an answer; else their connections are closed.
        status: the HTTP status that refuses every request; None to answer them.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, ServerRun] = {}
        self.stored: dict[str, bytes] = {}
        self.views: list[dict[str, Any]] = []
        self.status: int | None = None
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.operations: list[str] = []
        self.unknown: list[str] = []
        self.dies_after: int | None = None
        self.hangs = False
        self.closing = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """What `WANDB_BASE_URL` takes."""
        return f"http://127.0.0.1:{self.server_port}"

    def tables(self, run: ServerRun) -> list[dict[str, Any]]:
        """The tables of a run in the order in which they were logged."""
        paths = [row["samples"]["path"] for row in run.rows if "samples" in row]
        return [json.loads(run.files[path]) for path in paths]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that was killed closes its connections."""

    def answer(self, operation: str, variables: dict[str, Any]) -> Any:
        """The data of a GraphQL operation, and what it changes."""
        method = getattr(self, f"on_{operation}", None)
        if method is None:
            self.unknown.append(operation)
            return {}
        return method(variables)

    def on_Viewer(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return {"viewer": {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def on_ServerFeaturesQuery(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def on_RunResumeStatus(self, v: dict[str, Any]) -> Any:  # noqa: N802
        run = self.runs.get(v["name"])
        if run is None:
            return {"model": {"id": "p", "name": v["project"], "entity": {"id": "1", "name": "me"}, "bucket": None}}
        run.resumed += 1
        rows = run.rows
        bucket = {
            "id": run.id,
            "name": run.id,
            "displayName": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "historyLineCount": len(rows),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "eventsTail": "[]",
            "tags": run.attributes.get("tags") or [],
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": {"id": "p", "name": v["project"], "entity": {"id": "1", "name": "me"}, "bucket": bucket}}

    def on_UpsertBucket(self, v: dict[str, Any]) -> Any:  # noqa: N802
        run = self.runs.setdefault(v["name"], ServerRun(v["name"]))
        run.name = v.get("displayName") or run.name
        run.attributes |= {key: value for key, value in v.items() if value is not None}
        if v.get("config"):
            run.config |= {k: item["value"] for k, item in json.loads(v["config"]).items() if not k.startswith("_")}
        project = {"id": "p", "name": v.get("project") or "p", "entity": {"id": "1", "name": "me"}}
        bucket = {
            "id": run.id,
            "name": run.id,
            "displayName": run.name,
            "config": json.dumps({}),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": v["name"] not in self.runs}}

    def on_CreateRunFiles(self, v: dict[str, Any]) -> Any:  # noqa: N802
        files = [{"name": n, "uploadUrl": f"{self.url}/files/{v['run']}/{n}"} for n in v["files"]]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def on_RunStoppedStatus(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return {"project": {"run": {"stopped": False}}}

    def on_ProjectInternalId(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return {"project": {"internalId": base64.b64encode(b"ProjectInternalId:1").decode()}}

    def on_ArtifactType(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return {"project": None}

    def on_OrganizationCoreWeaveOrganizationID(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return {"entity": None}

    def on_CreateArtifact(self, v: dict[str, Any]) -> Any:  # noqa: N802
        value = v.get("input", v)
        number = str(len(self.artifacts) + 1)
        self.artifacts[number] = artifact = {**value, "id": number, "entries": {}}
        if (run := self.runs.get(value.get("runName") or "")) is not None:
            run.artifacts.append(artifact)
        return {"createArtifact": {"artifact": {"id": number, "state": "PENDING", "artifactSequence": {"id": "s"}}}}

    def on_CreateArtifactManifest(self, v: dict[str, Any]) -> Any:  # noqa: N802
        value = v.get("input", v)
        file = self.upload(f"manifest-{value['artifactID']}", "wandb_manifest.json")
        manifest = {"id": f"m{value['artifactID']}", "file": file}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def on_UpdateArtifactManifest(self, v: dict[str, Any]) -> Any:  # noqa: N802
        value = v.get("input", v)
        number = str(value["artifactManifestID"]).removeprefix("m")
        file = self.upload(f"manifest-{number}", "wandb_manifest.json")
        return {"updateArtifactManifest": {"artifactManifest": {"id": f"m{number}", "file": file}}}

    def on_CreateArtifactFiles(self, v: dict[str, Any]) -> Any:  # noqa: N802
        files = v.get("input", v).get("artifactFiles", [])
        edges = []
        for file in files:
            number = file["artifactID"]
            upload = self.upload(f"artifact-{number}/{file['name']}", file["name"])
            self.artifacts[number]["entries"][file["name"]] = f"artifact-{number}/{file['name']}"
            node = upload | {"storagePath": file["name"], "artifact": {"id": number}, "uploadMultipartUrls": None}
            edges.append({"node": node | {"uploadUrl": upload["uploadUrl"]}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, v: dict[str, Any]) -> Any:  # noqa: N802
        number = v.get("input", v)["artifactID"]
        self.artifacts[number]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": number, "digest": "d"}}}

    def on_UpsertView2(self, v: dict[str, Any]) -> Any:  # noqa: N802
        self.views.append(v)
        return {"upsertView": {"view": {"id": "v", "name": v["name"]}, "inserted": True}}

    def on_GetDefaultEntity(self, v: dict[str, Any]) -> Any:  # noqa: N802
        return {"viewer": {"id": "1", "entity": "me", "username": "me"}}

    def on_ArtifactMembershipByName(self, v: dict[str, Any]) -> Any:  # noqa: N802
        name, _, alias = v["name"].partition(":")
        project = {"id": "p", "internalId": "1", "name": v["project"], "entity": {"name": v["entity"]}}
        collection = {"__typename": "ArtifactSequence", "name": name, "project": project}
        for number, artifact in reversed(self.artifacts.items()):
            if artifact["artifactCollectionName"] == name and alias in {a["alias"] for a in artifact["aliases"]}:
                aliases = [
                    {"__typename": "ArtifactAlias", "id": a["alias"], "alias": a["alias"]} for a in artifact["aliases"]
                ]
                found = {
                    **{"__typename": "Artifact", "id": number, "artifactSequence": collection, "versionIndex": 0},
                    **{"artifactType": {"name": artifact["artifactTypeName"]}, "description": None, "metadata": "{}"},
                    **{"ttlDurationSeconds": -1, "ttlIsInherited": True, "tags": [], "historyStep": 1, "aliases": []},
                    **{
                        "state": "COMMITTED",
                        "size": 1,
                        "digest": artifact["digest"],
                        "digestAlgorithm": "MANIFEST_MD5",
                    },
                    **{"commitHash": "c", "fileCount": 1, "createdAt": DATE, "updatedAt": DATE},
                }
                membership = {
                    "__typename": "ArtifactCollectionMembership",
                    "id": "m",
                    "versionIndex": 0,
                    "createdAt": DATE,
                }
                membership |= {"aliases": aliases, "artifactCollection": collection, "artifact": found}
                return {"project": {"artifactCollectionMembership": membership}}
        return {"project": None}

    def on_FetchArtifactManifest(self, v: dict[str, Any]) -> Any:  # noqa: N802
        url = f"{self.url}/storage/manifest-{v['id']}"
        return {"artifact": {"currentManifest": {"file": {"directUrl": url}}}}

    def on_GetArtifactMembershipFileUrls(self, v: dict[str, Any]) -> Any:  # noqa: N802
        artifact = next(a for a in self.artifacts.values() if a["artifactCollectionName"] == v["collection"])
        edges = [
            {"node": {"__typename": "File", "name": name, "directUrl": f"{self.url}/storage/{key}"}}
            for name, key in artifact["entries"].items()
        ]
        files = {"pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}, "edges": edges}
        collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": files}}
        return {"project": {"artifactCollection": collection}}

    def upload(self, key: str, name: str) -> dict[str, Any]:
        """Where a file of an artifact is to be put."""
        url = f"{self.url}/storage/{key}"
        return {"id": key, "name": name, "displayName": name, "uploadUrl": url, "uploadHeaders": []}


class Handler(BaseHTTPRequestHandler):
    """One request of a client."""

    server: WandbServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests look at the server."""

    def do_GET(self) -> None:
        stored = self.server.stored.get(self.path.removeprefix("/storage/"))
        self.reply(404 if stored is None else 200, stored or b"")

    def do_POST(self) -> None:
        content = self.read()
        if self.server.status is not None:
            self.reply(self.server.status, b'{"errors": [{"message": "refused"}]}')
            return
        with self.server.lock:
            if self.path == "/graphql":
                body = json.loads(content)
                found = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
                operation = found[1] if found else ""
                self.server.operations.append(operation)
                answer = {"data": self.server.answer(operation, body.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                run_id = self.path.split("/")[-2]
                self.server.runs.setdefault(run_id, ServerRun(run_id)).stream(json.loads(content))
                answer = {"limits": {}}
            else:
                answer = {}
        self.reply(200, json.dumps(answer).encode())

    def do_PUT(self) -> None:
        content = self.read()
        with self.server.lock:
            if self.path.startswith("/files/"):
                _, _, run_id, name = self.path.split("/", 3)
                self.server.runs[run_id].files[name] = content
            else:
                self.server.stored[self.path.removeprefix("/storage/")] = content
        self.reply(200, b"")

    def read(self) -> bytes:
        """The body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status: int, content: bytes) -> None:
        """Answer, unless this server is to be dead by now."""
        if self.server.dies_after is not None:
            self.server.dies_after -= 1
            if self.server.dies_after < 0:
                self.close_connection = True
                if self.server.hangs:
                    self.server.closing.wait()
                return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serving() -> Iterator[WandbServer]:
    """A server that answers until the end of the context."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
