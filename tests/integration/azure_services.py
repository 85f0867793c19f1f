#!/usr/bin/env python3
"""The parts of Azure DevOps, Azure ML, Azure AD, blob storage and Databricks that our clients call, after their public REST
references. Answers only what the reference allows (right path, api-version, credentials and fields), records each request, and
prints "PORT\n" when it listens. GET /record gives the requests; it ends with its standard input.
"""
import base64
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import azdo_server

PAT = "Basic " + base64.b64encode(b":the-pat").decode()
WORKSPACE = (r"/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws")
record = []
state = {"polls": 0, "oidc": 0, "assertions": set()}
faults = []  # what the next requests to Azure DevOps get: (status, headers)


class Refusal(Exception):
    pass


def need(condition, status, text):
    if not condition:
        raise Refusal(status, text)


def token(request, form):
    if "client_assertion" in form:
        need(form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", 400, "assertion type")
        need("client_secret" not in form and form["client_assertion"] not in state["assertions"], 401, "AADSTS700024: used")
        need(form["client_assertion"].startswith("jwt-"), 401, "bad assertion")
        state["assertions"].add(form["client_assertion"])
        return {"access_token": "aad:" + form["scope"], "expires_in": 3600, "token_type": "Bearer"}
    need(form.get("grant_type") == "client_credentials" and form.get("client_secret") == "s3cret", 401, "bad client")
    return {"access_token": "aad:" + form["scope"], "expires_in": 3600, "token_type": "Bearer"}


def azdo(request, path, query, body):
    need(request.headers.get("Authorization") in (PAT, "Bearer aad:azdo/.default"), 401, "TF400813: not authorized")
    if faults:
        status, headers = faults.pop(0)
        raise Refusal(status, "come back later", headers)
    row, problem = azdo_server.check(request.command, path, query, request.headers, body)
    need(row, 404 if (problem or "").startswith("no contract") else 400, problem)
    return azdo_server.answer(row, query, body, "http://%s" % request.headers["Host"])


def oidc(request, query, body):
    need(request.headers.get("Authorization") == "Bearer job-token", 401, "not the job's token")
    need(request.command == "POST" and request.headers.get("Content-Type") == "application/json" and not body, 400, "form")
    need(query == {"api-version": "7.1", "serviceConnectionId": "conn-1"}, 400, "query")
    state["oidc"] += 1
    return {"oidcToken": "jwt-%d" % state["oidc"]}


def azureml(request, path, query, body):
    need(request.headers.get("Authorization") == "Bearer aad:https://management.azure.com/.default", 401, "no token")
    need(query.get("api-version") == "2024-04-01", 400, "no api-version")
    if path == WORKSPACE + "/models/digits":
        raise Refusal(404, "not found")
    if path == WORKSPACE + "/datastores/workspaceblobstore":
        return {"properties": {"protocol": "http", "accountName": "acct", "containerName": "box",
                               "endpoint": "localhost:%d" % request.server.server_port}}
    if path == WORKSPACE + "/models/digits/versions/1" and request.command == "PUT":
        properties = json.loads(body)["properties"]
        need(properties["modelUri"].startswith("azureml://subscriptions/sub/resourcegroups/rg/workspaces/ws/datastores/"),
             400, "wrong uri")
        return {"id": path, "name": "1", "properties": properties}
    raise Refusal(404, "no such path")


def blob(request, path, body):
    need(request.headers.get("Authorization") == "Bearer aad:https://storage.azure.com/.default", 403, "no token")
    need(request.headers.get("x-ms-blob-type") == "BlockBlob" and request.headers.get("x-ms-version"), 400, "headers")
    need(path == "/box/models/digits/1/model.json" and body == b"{}", 400, "wrong blob")
    return {}


def databricks(request, path, query, body):
    need(request.headers.get("Authorization") == "Bearer dapi", 403, "Invalid access token.")
    sent = json.loads(body) if body else {}
    if path == "/api/2.0/workspace/mkdirs":
        return {}
    if path == "/api/2.0/workspace/import":
        need(base64.b64decode(sent["content"]) == b"print(1)\n" and sent["language"] == "PYTHON", 400, "content")
        return {}
    if path == "/api/2.1/jobs/runs/submit":
        task = sent["tasks"][0]
        need(task["notebook_task"]["notebook_path"].startswith("/Shared/") and sent["idempotency_token"], 400, "task")
        state["polls"], state["bad"] = 0, task["notebook_task"]["notebook_path"].endswith("bad")
        return {"run_id": 77}
    if path == "/api/2.1/jobs/runs/get":
        state["polls"] += 1
        life = "RUNNING" if state["polls"] < 3 else "TERMINATED"
        result = {"result_state": "FAILED" if state["bad"] else "SUCCESS"} if life == "TERMINATED" else {}
        return {"run_id": 77, "run_page_url": "https://db.example/run/77", "tasks": [{"run_id": 78}],
                "state": {"life_cycle_state": life, "state_message": "", **result}}
    if path == "/api/2.1/jobs/runs/get-output":
        need(query["run_id"] == "78", 400, "output belongs to the task")
        return {"error": "NameError: x"} if state["bad"] else {"notebook_output": {"result": "42"}}
    raise Refusal(404, "no such path")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, value, headers=None):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def any(self):
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {k: v[-1] for k, v in parse_qs(url.query).items()}
        if url.path == "/record":
            self.reply(200, record)
            return
        if url.path == "/contracts":
            self.reply(200, sorted(row["id"] for row in azdo_server.CONTRACTS if row["id"] not in azdo_server.seen))
            return
        if url.path == "/faults":
            faults[:] = [(status, headers) for status, headers in json.loads(body)]
            self.reply(200, {})
            return
        record.append(self.command + " " + url.path)
        try:
            if re.match(r"/t1/oauth2/v2.0/token$", url.path):
                value = token(self, {k: v[-1] for k, v in parse_qs(body.decode()).items()})
            elif self.headers.get("Host", "").startswith("acct.blob."):
                value = blob(self, url.path, body)
            elif url.path == "/oidctoken":
                value = oidc(self, query, body)
            elif url.path == "/_apis/resources/Containers/1":
                need(self.headers.get("Authorization") == PAT and query == {"$format": "zip"}, 401, "zip")
                value = {"zip": True}
            elif url.path.startswith("/signin/"):
                raise Refusal(302 if url.path.startswith("/signin/302") else 203, "<html>sign in</html>", {"Location": "/login"})
            elif url.path.startswith("/proj/"):
                value = azdo(self, url.path, query, body)
            elif url.path.startswith("/subscriptions/"):
                value = azureml(self, url.path, query, body)
            else:
                value = databricks(self, url.path, query, body)
            self.reply(200, value)
        except Refusal as refusal:
            self.reply(refusal.args[0], {"message": refusal.args[1], "error_code": "REFUSED"}, *refusal.args[2:])
        except (KeyError, ValueError, IndexError) as missing:
            self.reply(400, {"message": "bad field: %r" % missing, "error_code": "REFUSED"})

    do_GET = do_POST = do_PUT = do_PATCH = any


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
