"""Azure DevOps for tests: requests are checked against the contracts in contracts/azdo/ (method, path, query, headers and body),
then answered with the little state that the clients need to see."""
import glob
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
CONTRACTS = [row for path in sorted(glob.glob(HERE + "/contracts/azdo/*.json")) for row in json.load(open(path))]
KINDS = {"string": str, "integer": int, "object": dict, "array": list, "boolean": bool}
seen = set()
state = {"polls": 0, "cancelled": False, "statuses": [], "threads": []}


def fault(schema, value, at="body"):
    """What is wrong with a value, by the part of JSON Schema that the contracts use; None: nothing."""
    if "oneOf" in schema:
        faults = [fault(one, value, at) for one in schema["oneOf"]]
        return None if faults.count(None) == 1 else "; or ".join(f or "fits twice" for f in faults)
    if "const" in schema and value != schema["const"]:
        return "%s is %r, not %r" % (at, value, schema["const"])
    if "enum" in schema and value not in schema["enum"]:
        return "%s is %r, not one of %r" % (at, value, schema["enum"])
    kind = KINDS.get(schema.get("type"))
    if kind and (not isinstance(value, kind) or kind is int and isinstance(value, bool)):
        return "%s is not of type %s" % (at, schema["type"])
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        return "%s is too short" % at
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return "%s has %d items" % (at, len(value))
        return next(filter(None, (fault(schema.get("items", {}), v, "%s[%d]" % (at, i)) for i, v in enumerate(value))), None)
    if isinstance(value, dict):
        extra = schema.get("additionalProperties", True)
        for name in schema.get("required", []):
            if name not in value:
                return "%s has no %s" % (at, name)
        for name, item in value.items():
            one = schema.get("properties", {}).get(name, extra)
            if one is False:
                return "%s may not have %s" % (at, name)
            problem = fault(one, item, at + "." + name) if isinstance(one, dict) else None
            if problem:
                return problem
    return None


def check(method, path, query, headers, body):
    """-> (contract, None) or (None, what is wrong)"""
    rows = [row for row in CONTRACTS if row["path"] == path and row["method"] == method]
    if not rows:
        return None, "no contract for %s %s" % (method, path)
    row = rows[0]
    for name, value in row["query"].items():
        if query.get(name) != value:
            return None, "query %s is %r, not %r" % (name, query.get(name), value)
    for name in query:
        if name not in row["query"] and name not in row.get("optional_query", []):
            return None, "query %s is unknown" % name
    for name, value in row.get("headers", {}).items():
        if (headers.get(name) or "").split(";")[0] != value:
            return None, "header %s is %r, not %r" % (name, headers.get(name), value)
    if "body" in row:
        problem = fault(row["body"], json.loads(body))
        if problem:
            return None, problem
    elif method == "GET" and body:
        return None, "a GET has no body"
    seen.add(row["id"])
    return row, None


def answer(row, query, body, base):
    """What the service would say to a request that fits its contract."""
    name, sent = row["id"], json.loads(body) if "body" in row else None
    if name == "create log":
        return {"id": 12}
    if name == "append log":
        return {"id": 12, "lineCount": body.count(b"\n")}
    if name == "run pipeline":
        if sent.get("previewRun"):
            return {"finalYaml": "stages: []", "id": -1, "state": "unknown"}
        state["polls"], state["cancelled"] = 0, False
        state["ends"] = sent.get("templateParameters", {}).get("ends", "succeeded")
        return {"id": 34, "state": "inProgress", "url": base + "/run/34", "_links": {"web": {"href": base + "/web/34"}}}
    if name == "get run":
        state["polls"] += 1
        if state["ends"] == "never" and not state["cancelled"] or state["polls"] < 3:
            return {"id": 34, "state": "inProgress"}
        return {"id": 34, "state": "completed", "result": "canceled" if state["cancelled"] else state["ends"]}
    if name == "cancel":
        state["cancelled"] = True
        return {"id": 34, "status": "cancelling"}
    if name == "timeline":
        return {"records": [{"name": "Train", "result": "failed", "issues": [{"type": "error", "message": "no data"}]}]}
    if name == "artifacts":
        found = {"id": 1, "name": query.get("artifactName", "model"),
                 "resource": {"type": "Container", "downloadUrl": base + "/_apis/resources/Containers/1?$format=zip"}}
        return found if "artifactName" in query else {"count": 1, "value": [found]}
    if name == "approvals":
        return {"count": 1, "value": [{"id": "a-1", "status": query.get("state", "pending")}]}
    if name == "approve":
        return {"count": 1, "value": [{"id": sent[0]["approvalId"], "status": sent[0]["status"]}]}
    if name == "list statuses":
        return {"value": state["statuses"]}
    if name == "status":
        state["statuses"].append({**sent, "id": len(state["statuses"]) + 1})
        return state["statuses"][-1]
    if name == "list threads":
        return {"value": state["threads"]}
    if name == "create thread":
        sent["comments"][0]["id"] = 1
        state["threads"].append({**sent, "id": 5})
        return state["threads"][-1]
    if name == "update thread":
        state["threads"][0]["status"] = sent["status"]
        return state["threads"][0]
    if name == "update comment":
        state["threads"][0]["comments"][0]["content"] = sent["content"]
        return state["threads"][0]["comments"][0]
    if name == "create run":
        return {"id": 9, "state": "InProgress"}
    return {}
