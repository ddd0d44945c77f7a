"""A stand-in for the Hub, which huggingface_hub finds through HF_ENDPOINT."""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler

from loopback import Server, send

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = "89abcdef0123456789abcdef0123456789abcdef"


class Hub(Server):
    """What huggingface_hub asks of the Hub to read and write model repositories."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.branches = {"main": COMMIT}
        self.error: tuple[int, str] | None = None
        self.stored: dict[str, bytes] = {}
        self.committed: dict[str, bytes] = {}
        self.created: dict[str, object] = {}
        self.otherwise = self.answer

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if path.startswith(("/api/repos/create", "/api/validate-yaml", "/lfs/")) or handler.command in ("POST", "PUT"):
            return self._write(handler, path, body)
        if not path.startswith(("/user/name/", "/api/models/user/name")):
            return send(handler, 404, X_Error_Code="RepoNotFound")
        if self.error:
            return send(handler, self.error[0], X_Error_Code=self.error[1])
        revision = path.split("/")[4] if "/resolve/" in path else path.partition("/revision/")[2] or "main"
        commit = self.branches.get(revision, revision)
        if commit not in self.branches.values():
            return send(handler, 404, X_Error_Code="RevisionNotFound")
        if path.startswith("/api/"):
            files = [{"rfilename": name, "size": len(data)} for name, data in self.files.items()]
            info = {"id": "user/name", "modelId": "user/name", "sha": commit, "siblings": files, "tags": []}
            return send(handler, 200, json.dumps(info).encode())
        name = path.rpartition("/")[2]
        if name not in self.files:
            return send(handler, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        data = self.files[name]
        return send(handler, 200, data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', X_Repo_Commit=commit)

    def _write(self, handler: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        def answer(document: object) -> None:
            send(handler, 200, json.dumps(document).encode(), Content_Type="application/json")

        if self.error:
            return send(handler, self.error[0], X_Error_Code=self.error[1])
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return answer({"url": f"{self.url}/user/name", "name": "user/name"})
        if path == "/api/validate-yaml":
            return answer({"errors": [], "warnings": []})
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return answer({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.url}/lfs/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            return answer({"transfer": "basic", "objects": objects})
        if path.startswith("/lfs/"):
            self.stored[path.rpartition("/")[2]] = body
            return send(handler, 200)
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.committed[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.committed[value["path"]] = self.stored[value["oid"]]
            return answer({"success": True, "commitUrl": f"{self.url}/user/name/commit/{COMMIT}", "commitOid": COMMIT})
        return send(handler, 404)
