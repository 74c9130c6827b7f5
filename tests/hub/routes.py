"""The hub's endpoints: one function each, and the table that leads to them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from .messages import HubError, Request, Response
from .metadata import metadata_errors
from .repository import Blob, Commit, Repository, is_large

if TYPE_CHECKING:
    from .server import LoopbackHub


class Call:
    """One request on its way through an endpoint: who asks, and what the path names."""

    def __init__(self, hub: LoopbackHub, request: Request, names: dict[str, str | None]) -> None:
        self.hub, self.request = hub, request
        self.names = {name: unquote(value) for name, value in names.items() if value is not None}
        credentials = request.headers.get("authorization")
        if credentials not in (None, f"Bearer {hub.token}"):
            raise HubError(401, "Invalid credentials in Authorization header")
        self.authorised = credentials is not None

    def repository(self) -> Repository:
        """The repository that the path names; a private one does not exist for those who may not see it."""
        repository = self.hub.repositories.get((self.names.get("kind", "models"), self.names["id"]))
        if repository is None or (repository.private and not self.authorised):
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repository

    def require_write(self, namespace: str) -> None:
        """Refuse who has no token, and namespaces that are not the account's."""
        if not self.authorised:
            raise HubError(401, "Invalid username or password.")
        if namespace not in (self.hub.user, self.hub.organisation):
            raise HubError(403, f'You don\'t have the rights to write under the namespace "{namespace}"')

    def own_repository(self) -> Repository:
        """The repository that the path names, if the caller may write to it."""
        repository = self.repository()
        self.require_write(repository.namespace)
        return repository

    def commit(self, repository: Repository) -> Commit:
        """The commit of the revision that the path names, `main` where it names none."""
        revision = self.names.get("revision", "main")
        commit = repository.find(revision)
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


def whoami(call: Call) -> Response:
    if not call.authorised:
        raise HubError(401, "Invalid username or password.")
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
    organisation = {"name": call.hub.organisation, "type": "org", "roleInOrg": "admin"}
    return Response.of({"type": "user", "name": call.hub.user, "orgs": [organisation], "auth": token})


def validate_yaml(call: Call) -> Response:
    """Check a card's metadata: that it is YAML, and the form of the fields that cards of this project use."""
    metadata = re.match(r"---\r?\n(.+?)\r?\n---(\r?\n|$)", call.request.json()["content"], re.DOTALL)
    if metadata is None:
        return Response.of({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    errors = [{"message": message} for message in metadata_errors(metadata[1])]
    return Response.of({"errors": errors, "warnings": []}, 400 if errors else 200)


def create_repository(call: Call) -> Response:
    asked = call.request.json()
    namespace = asked.get("organization") or call.hub.user
    kind = f"{asked.get('type') or 'model'}s"
    call.require_write(namespace)
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    repository = Repository(kind, f"{namespace}/{asked['name']}", private)
    existed = (kind, repository.id) in call.hub.repositories
    repository = call.hub.repositories.setdefault((kind, repository.id), repository)
    content = {"url": call.hub.url + repository.page, "name": repository.id, "id": repository.id}
    if existed:
        message = f"You already created this {kind[:-1]} repo: {repository.id}"
        return Response.of({**content, "error": message}, 409, {"X-Error-Message": message})
    return Response.of(content)


def repository_info(call: Call) -> Response:
    repository = call.repository()
    commit = call.commit(repository)
    siblings: list[dict[str, Any]] = []
    for path, blob in sorted(commit.files.items()):
        siblings.append({"rfilename": path})
        if call.request.flag("blobs"):
            siblings[-1] |= {"size": len(blob.data), "blobId": blob.oid}
            if blob.large:
                large = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": blob.pointer_size}
                siblings[-1]["lfs"] = large
    return Response.of(
        {
            "_id": hashlib.md5(f"{repository.kind}/{repository.id}".encode()).hexdigest()[:24],
            "id": repository.id,
            "author": repository.namespace,
            "sha": commit.id,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "createdAt": repository.created,
            "lastModified": commit.date,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }
    )


def list_tree(call: Call) -> Response:
    commit = call.commit(call.repository())
    folder, expand = call.names.get("path", ""), call.request.flag("expand")
    entries = commit.tree(folder, call.request.flag("recursive"), expand)
    if folder and not entries:
        raise HubError(404, f"{folder} does not exist on revision", "EntryNotFound")
    start = int(call.request.query.get("cursor", ["0"])[0])
    end = start + call.hub.page_size
    headers = {}
    if end < len(entries):
        query = urlencode({**call.request.query, "cursor": [end]}, doseq=True)
        headers["Link"] = f'<{call.hub.url}{call.request.path}?{query}>; rel="next"'
    return Response.of(entries[start:end], headers=headers)


def paths_info(call: Call) -> Response:
    commit = call.commit(call.repository())
    asked = parse_qs(call.request.body.decode())
    expand = asked.get("expand", [""])[0].lower() == "true"
    entries = [commit.entry(path.strip("/"), expand) for path in asked.get("paths", [])]
    return Response.of([entry for entry in entries if entry])


def list_commits(call: Call) -> Response:
    commit: Commit | None = call.commit(call.repository())
    history = []
    while commit is not None:
        author = [{"user": call.hub.user}]
        named = {"id": commit.id, "title": commit.title, "message": commit.description, "date": commit.date}
        history.append({**named, "authors": author})
        commit = commit.parent
    return Response.of(history)


def list_refs(call: Call) -> Response:
    repository = call.repository()
    sections = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
    refs = {
        section: [{"name": name, "ref": f"refs/{ref}/{name}", "targetCommit": id} for name, id in known.items()]
        for section, (ref, known) in sections.items()
    }
    return Response.of({**refs, "converts": [], "pullRequests": []})


def create_branch(call: Call) -> Response:
    repository = call.own_repository()
    if call.names["branch"] in repository.branches:
        raise HubError(409, f"Reference already exists: refs/heads/{call.names['branch']}")
    call.names["revision"] = call.request.json().get("startingPoint", "main")
    repository.branches[call.names["branch"]] = call.commit(repository).id
    return Response.of({})


def delete_branch(call: Call) -> Response:
    repository = call.own_repository()
    if call.names["branch"] == "main":
        raise HubError(403, "Cannot delete the main branch")
    if repository.branches.pop(call.names["branch"], None) is None:
        raise HubError(404, f"No such branch: {call.names['branch']}", "RevisionNotFound")
    return Response.of({})


def create_tag(call: Call) -> Response:
    repository = call.own_repository()
    commit, tag = call.commit(repository), call.request.json()["tag"]
    if tag in repository.tags:
        raise HubError(409, f"Tag reference exists already: refs/tags/{tag}")
    repository.tags[tag] = commit.id
    return Response.of({})


def delete_tag(call: Call) -> Response:
    if call.own_repository().tags.pop(call.names["tag"], None) is None:
        raise HubError(404, f"No such tag: {call.names['tag']}", "RevisionNotFound")
    return Response.of({})


def preupload(call: Call) -> Response:
    commit = call.commit(call.own_repository())
    files = []
    for file in call.request.json()["files"]:
        path, known = file["path"], commit.files.get(file["path"])
        large = is_large(path, file["size"], base64.b64decode(file.get("sample", "")))
        answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        files.append(answer | ({"oid": known.etag} if known and known.large == large else {}))
    return Response.of({"files": files})


def large_files_batch(call: Call) -> Response:
    repository = call.own_repository()
    objects = []
    for asked in call.request.json()["objects"]:
        wanted = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in repository.large_files:
            key = secrets.token_hex(16)
            call.hub.uploads[key] = (repository, asked["oid"])
            address = f"{call.hub.url}/large-files/{key}"
            wanted["actions"] = {"upload": {"href": address}, "verify": {"href": f"{address}/verify"}}
        objects.append(wanted)
    return Response.of({"transfer": "basic", "objects": objects})


def upload_large_file(call: Call) -> Response:
    """Take the bytes; as with a signed address, the address alone is the permission."""
    repository, sha256 = _upload_target(call)
    if hashlib.sha256(call.request.body).hexdigest() != sha256:
        raise HubError(400, "The SHA-256 of the upload is not the one that was announced")
    repository.large_files[sha256] = call.request.body
    return Response(200)


def verify_large_file(call: Call) -> Response:
    repository, sha256 = _upload_target(call)
    call.require_write(repository.namespace)
    if len(repository.large_files.get(sha256, b"")) != call.request.json()["size"]:
        raise HubError(404, "The large file has not arrived")
    return Response.of({})


def _upload_target(call: Call) -> tuple[Repository, str]:
    if call.names["key"] not in call.hub.uploads:
        raise HubError(403, "Unknown upload address")
    return call.hub.uploads[call.names["key"]]


def create_commit(call: Call) -> Response:
    """All of a commit's changes or none of them."""
    repository = call.own_repository()
    branch = call.names["revision"]
    head = call.commit(repository)
    if branch not in repository.branches:
        raise HubError(400, f"{branch} is not a branch")
    if call.request.flag("create_pr"):
        raise HubError(501, "Pull requests are not served")
    header: dict[str, Any] = {}
    files = dict(head.files)
    for line in call.request.body.splitlines():
        change = json.loads(line)
        if change["key"] == "header":
            header = change["value"]
        else:
            _apply(change["key"], change["value"], files, repository)
    if not head.id.startswith(header.get("parentCommit") or head.id):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    commit = repository.commit(branch, files, header["summary"], header.get("description", ""))
    address = f"{call.hub.url}{repository.page}/commit/{commit.id}"
    return Response.of({"success": True, "commitOid": commit.id, "commitUrl": address})


def _apply(key: str, value: dict[str, Any], files: dict[str, Blob], repository: Repository) -> None:
    path = value["path"].strip("/")
    if key == "file":
        files[path] = Blob(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in repository.large_files:
            raise HubError(400, f"The large file of {path} has not been uploaded: {value['oid']}")
        files[path] = Blob(repository.large_files[value["oid"]], large=True)
    elif key in ("deletedFile", "deletedFolder"):
        gone = [known for known in files if known == path or (key == "deletedFolder" and known.startswith(f"{path}/"))]
        if not gone:
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for known in gone:
            del files[known]
    else:
        raise HubError(400, f"Unknown operation: {key}")


def resolve(call: Call) -> Response:
    """The file itself, or the range of it that was asked for."""
    commit = call.commit(call.repository())
    headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    path = call.names["path"]
    blob = commit.files.get(path)
    if blob is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    headers |= {"ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(path.split('/')[-1])}"
    if blob.large:
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.request.headers.get("range", ""))
    if asked is None or not any(asked.groups()):
        return Response(200, blob.data, headers)
    size = len(blob.data)
    first = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
    last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
    if first > last:
        raise HubError(416, "Range not satisfiable", headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(206, blob.data[first : last + 1], headers)


_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)"
_PAGE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+/[^/]+?)"
_REVISION = r"(?P<revision>[^/]+)"
ROUTES: list[tuple[str, str, Callable[[Call], Response]]] = [
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("POST", r"/api/repos/create", create_repository),
    ("GET", rf"{_API}(?:/revision/{_REVISION})?", repository_info),
    ("GET", rf"{_API}/tree/{_REVISION}(?:/(?P<path>.+))?", list_tree),
    ("POST", rf"{_API}/paths-info/{_REVISION}", paths_info),
    ("GET", rf"{_API}/commits/{_REVISION}", list_commits),
    ("GET", rf"{_API}/refs", list_refs),
    ("POST", rf"{_API}/branch/(?P<branch>[^/]+)", create_branch),
    ("DELETE", rf"{_API}/branch/(?P<branch>[^/]+)", delete_branch),
    ("POST", rf"{_API}/tag/{_REVISION}", create_tag),
    ("DELETE", rf"{_API}/tag/(?P<tag>[^/]+)", delete_tag),
    ("POST", rf"{_API}/preupload/{_REVISION}", preupload),
    ("POST", rf"{_API}/commit/{_REVISION}", create_commit),
    ("POST", rf"{_PAGE}\.git/info/lfs/objects/batch", large_files_batch),
    ("PUT", r"/large-files/(?P<key>[^/]+)", upload_large_file),
    ("POST", r"/large-files/(?P<key>[^/]+)/verify", verify_large_file),
    ("GET", rf"{_PAGE}/resolve/{_REVISION}/(?P<path>.+)", resolve),
]


def answer(hub: LoopbackHub, request: Request) -> Response:
    """Lead a request to its endpoint."""
    method = "GET" if request.method == "HEAD" else request.method
    for expected, pattern, endpoint in ROUTES:
        if method == expected and (match := re.fullmatch(pattern, request.path)):
            return endpoint(Call(hub, request, match.groupdict()))
    raise HubError(404, f"Not served by this hub: {request.method} {request.path}")
