#!/usr/bin/env python3
"""`mlhost model` as its clients see it: paths, kinds of data, limits, a stuck and a crashing model, the drain, the sandbox,
the metrics. The official clients are in serving_peers. Ends with "N passed, N failed"."""
import base64
import http.client
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

PROGRAM = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))
MODEL = """
local fs = require "fs"
model "sum" {
  permissions = { env = { "GRANTED" } },
  metadata = { versions = { "3" }, inputs = { { name = "x", datatype = "FP64", shape = { -1, 2 } } } },
  class_names = { "sum" },
  load = function(cx) return { cx = cx, calls = 0, feedback = {} } end,
  predict = function(self, x, names, meta)
    self.calls = self.calls + 1
    if type(x) == "string" then
      if x == "loop" then while true do end end
      if x == "hop" then sleep "50ms" return "hopped" end
      if x == "slow" then sleep "700ms" return "done" end
      if x == "memory" then local t = {} while true do t[#t + 1] = ("x"):rep(1 << 20) .. #t end end
      if x == "escape" then
        local found = {}
        for _, name in ipairs { "io", "debug", "package", "dofile", "loadfile" } do
          if _G[name] then found[#found + 1] = name end
        end
        for name, fn in pairs { read = function() return fs.read "/etc/hostname" end, write = function() fs.write("/tmp/x", "y") end,
                                exec = function() return require("exec") { "id" } end,
                                net = function() return require("http").get "http://127.0.0.1:1/" end } do
          local ok, err = try(function() fn() return true end)
          if ok or err.code ~= "denied" then found[#found + 1] = name .. ":" .. tostring(err) end
        end
        return #found == 0 and "contained" or table.concat(found, " ")
      end
      if x == "raise" then error "on purpose" end
      if x == "parameters" then return tostring(self.cx.parameters.n + 1) .. self.cx.parameters.who end
      return x:upper()
    end
    if type(x) ~= "table" or #x == 0 then return { echo = x } end
    local out = {}
    for i, row in ipairs(x) do
      local sum = 0
      for _, v in ipairs(row) do
        if type(v) ~= "number" then bad_request("row %d holds a %s", i, type(v)) end
        sum = sum + v
      end
      out[i] = { sum }
    end
    return out
  end,
  transform_input = function(_, x) for _, row in ipairs(x) do row[1] = row[1] * 10 end return x end,
  route = function(_, x) return x[1][1] > 0 and 1 or 0 end,
  aggregate = function(_, list) return { { list[1][1][1] + list[2][1][1] } } end,
  feedback = function(self, request, response, reward, truth) self.feedback[#self.feedback + 1] = { reward, truth } end,
  explain = function(_, x) return { anchors = { "x > " .. x[1][1] } } end,
  health = function(self) return "well" end,
  tags = function(self) return { model_version = "3" } end,
  metrics = function(self) return { { key = "calls_seen", type = "COUNTER", value = 1 }, { key = "last", type = "GAUGE", value = 7.5 } } end,
}
"""
passed = failed = 0


def check(name, condition, detail=""):
    global passed, failed
    passed, failed = passed + bool(condition), failed + (not condition)
    if not condition:
        print(f"FAIL {name}: {detail}")


class Server:
    def __init__(self, folder, *options, text=MODEL, env=None):
        path = os.path.join(folder, "m.lua")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREDICTIVE", "MLHOST_MODEL"))}
        self.process = subprocess.Popen([PROGRAM, "model", path, "--port", "0", *options], cwd=folder, env={**clean, **(env or {})},
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1].split()[0]) if "ready on" in line else 0
        self.line = line

    def connect(self, timeout=30):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=None, connection=None):
        own = connection or self.connect()
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        own.request(method, path, body, headers or {"Content-Type": "application/json"})
        reply = own.getresponse()
        data = reply.read()
        if not connection:
            own.close()
        try:
            return reply.status, json.loads(data), reply
        except ValueError:
            return reply.status, data, reply

    def predict(self, message, path="/api/v1.0/predictions"):
        return self.ask("POST", path, message)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        try:
            out, err = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            return None, err
        return self.process.returncode, err


def seldon(server):
    for path in ("/predict", "/api/v1.0/predictions", "/api/v0.1/predictions"):
        status, body, _ = server.predict({"data": {"names": ["a", "b"], "ndarray": [[1, 2], [3, 4]]}}, path)
        check(path, status == 200 and body["data"] == {"names": ["sum"], "ndarray": [[3], [7]]}, body)
    check("tags and requestPath", body["meta"]["tags"] == {"model_version": "3"} and "sum" in body["meta"]["requestPath"], body)
    _, body, _ = server.predict({"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 3, 4]}}})
    check("tensor", body["data"]["tensor"] == {"shape": [2, 1], "values": [3, 7]}, body)
    _, body, _ = server.predict({"data": {"tftensor": {"dtype": "DT_DOUBLE", "tensorShape": {"dim": [{"size": "1"}, {"size": "2"}]},
                                                       "doubleVal": [1.5, 2]}}})
    check("tftensor", body["data"]["tftensor"]["doubleVal"] == [3.5], body)
    check("strData", server.predict({"strData": "abc"})[1]["strData"] == "ABC")
    check("binData", server.predict({"binData": base64.b64encode(b"abc").decode()})[1]["binData"] == base64.b64encode(b"ABC").decode())
    check("jsonData", server.predict({"jsonData": {"k": [1]}})[1]["jsonData"] == {"echo": {"k": [1]}})
    form = "json=" + urllib.parse.quote(json.dumps({"data": {"ndarray": [[1, 1]]}}))
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    check("a form's field json", server.ask("POST", "/predict", form, kind)[1]["data"]["ndarray"] == [[2]])
    check("the argument json", server.ask("GET", "/predict?" + form)[1]["data"]["ndarray"] == [[2]])
    part = ('--B\r\nContent-Disposition: form-data; name="strData"; filename="f"\r\n\r\nxyz\r\n--B--\r\n')
    check("multipart", server.ask("POST", "/predict", part, {"Content-Type": "multipart/form-data; boundary=B"})[1]["strData"] == "XYZ")
    message = {"data": {"ndarray": [[1, 2]]}}
    check("transform-input", server.ask("POST", "/transform-input", message)[1]["data"]["ndarray"] == [[10, 2]])
    check("transform-output passes on", server.ask("POST", "/transform-output", message)[1]["data"]["ndarray"] == [[1, 2]])
    check("route", server.ask("POST", "/route", message)[1]["data"]["ndarray"] == [[1]])
    two = [{"data": {"ndarray": [[1]]}, "meta": {"tags": {"a": 1}}}, {"data": {"ndarray": [[5]]}}]
    status, body, _ = server.ask("POST", "/aggregate", two)
    check("aggregate", body["data"]["ndarray"] == [[6]] and body["meta"]["tags"]["a"] == 1, body)
    check("aggregate of seldonMessages", server.ask("POST", "/aggregate", {"seldonMessages": two})[1]["data"]["ndarray"] == [[6]])
    check("send-feedback", server.ask("POST", "/send-feedback", {"request": message, "reward": 0.5, "truth": message})[0] == 200)
    check("explain", server.ask("POST", "/explain", message)[1] == {"anchors": ["x > 1"]})
    check("metadata", server.ask("GET", "/metadata")[1]["versions"] == ["3"])
    check("ping", server.ask("GET", "/health/ping")[1] == b"pong")
    check("status", server.ask("GET", "/health/status")[1]["strData"] == "well")
    check("openapi", "/predict" in server.ask("GET", "/seldon.json")[1]["paths"])


def open_inference(server):
    infer = "/v2/models/sum/infer"
    request = {"id": "42", "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [[1, 2], [3, 4.5]]}]}
    status, body, _ = server.ask("POST", infer, request)
    check("infer", status == 200 and body["id"] == "42" and body["outputs"][0]["data"] == [3, 7.5]
          and body["outputs"][0]["shape"] == [2, 1], body)
    check("a version", server.ask("POST", "/v2/models/sum/versions/3/infer", request)[0] == 200)
    check("another version", server.ask("POST", "/v2/models/sum/versions/4/infer", request)[0] == 404)
    check("without a name", server.ask("POST", "/v2/models/infer", request)[0] == 200)
    check("another model", server.ask("POST", "/v2/models/other/infer", request)[0] == 404)
    raw = struct.pack("<4f", 1, 2, 3, 4)
    head = json.dumps({"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}}],
                       "outputs": [{"name": "predict", "parameters": {"binary_data": True}}]}).encode()
    status, body, reply = server.ask("POST", infer, head + raw, {"Inference-Header-Content-Length": str(len(head)),
                                                               "Content-Type": "application/octet-stream"})
    length = int(reply.getheader("Inference-Header-Content-Length") or 0)
    check("binary tensors both ways", status == 200 and length > 0 and struct.unpack("<2d", body[length:]) == (3.0, 7.0), (status, body))
    half = struct.pack("<2e", 1.5, -2)
    head = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP16", "parameters": {"binary_data_size": 4}}]}).encode()
    status, body, _ = server.ask("POST", infer, head + half, {"Inference-Header-Content-Length": str(len(head))})
    check("half precision", status == 200 and body["outputs"][0]["data"] == [-0.5], body)
    check("metadata", server.ask("GET", "/v2/models/sum")[1]["inputs"][0]["datatype"] == "FP64")
    check("live and ready", server.ask("GET", "/v2/health/live")[0] == server.ask("GET", "/v2/health/ready")[0] == 200)
    check("unload", server.ask("POST", "/v2/repository/models/sum/unload", "{}")[0] == 200)
    check("unloaded everywhere", {server.ask("GET", "/v2/models/sum/ready")[0] for _ in range(8)} == {400})
    check("index", server.ask("POST", "/v2/repository/index", "{}")[1][0]["state"] == "UNAVAILABLE")
    check("load", server.ask("POST", "/v2/repository/models/sum/load", "{}")[0] == 200 and server.ask("POST", infer, request)[0] == 200)
    for name, broken in {"no inputs": {}, "a wrong shape": {"inputs": [{"name": "x", "shape": [3], "datatype": "FP64", "data": [1]}]},
                         "a datatype": {"inputs": [{"name": "x", "shape": [1], "datatype": "FLOAT", "data": [1]}]},
                         "ragged rows": {"inputs": [{"name": "x", "shape": [3], "datatype": "FP64", "data": [[1], [2, 3]]}]}}.items():
        status, body, _ = server.ask("POST", infer, broken)
        check(f"bad: {name}", status == 400 and isinstance(body.get("error"), str), body)
    for size in ("99999", "-1", "x"):
        check(f"a JSON length of {size}", server.ask("POST", infer, b"{}", {"Inference-Header-Content-Length": size})[0] == 400)


def bad_input(server):
    for body in ("", "{", "[]", "{}", '{"data": {}}', '{"data": {"tensor": {"shape": [3], "values": [1]}}}', '{"binData": "?"}',
                 '{"data": {"ndarray": [["a"]]}}', "[" * 5000 + "]" * 5000):
        status, told, _ = server.ask("POST", "/predict", body)
        check(f"400 for {body[:40]}", status == 400 and told["status"]["reason"] == "MICROSERVICE_BAD_DATA", (status, told))
    status, told, _ = server.predict({"strData": "raise"})
    check("a raise is 500", status == 500 and "on purpose" in told["status"]["info"]
          and told["status"]["reason"] == "MICROSERVICE_INTERNAL_ERROR", told)
    check("unknown path", server.ask("GET", "/nowhere")[0] == 404)
    check("wrong method", server.ask("PUT", "/predict", "{}")[0] == 405)
    check("a compressed body", server.ask("POST", "/predict", b"x", {"Content-Encoding": "gzip"})[0] == 415)
    check("too large", server.ask("POST", "/predict", b"x" * 300000)[0] == 413)
    check("contained", server.predict({"strData": "escape"})[1].get("strData") == "contained", server.predict({"strData": "escape"})[1])


def metrics(server):
    text = server.ask("GET", "/metrics")[1].decode()
    check("counted by route and code", 'mlhost_model_requests_total{model="sum",route="predict",code="2xx"}' in text, text[:500])
    check("a histogram", 'mlhost_model_request_seconds_bucket{model="sum",route="predict",le="+Inf"}' in text)
    check("the script's own", "calls_seen{" in text and 'last{model="sum"} 7.5' in text, text[-500:])


def stuck(folder):
    server = Server(folder, "--workers", "2", "--timeout", "1s")
    results = []
    started = time.monotonic()
    status, told, _ = server.predict({"strData": "loop"})
    check("an endless loop is 504", status == 504 and time.monotonic() - started < 10, (status, told))
    for _ in range(20):
        results.append(server.predict({"strData": "x"})[0])
    check("the others answer on", set(results) <= {200, 503} and results.count(200) >= 15, results)
    status, _, _ = server.predict({"strData": "memory"})
    check("a model that eats memory fails alone", status in (500, 503, 504), status)
    time.sleep(1)
    check("and is replaced", server.predict({"strData": "x"})[0] == 200)
    code, err = server.stop()
    check("the log says it", "a worker is replaced" in err, err)
    check("ends with 0", code == 0, code)


def concurrency(folder):
    server = Server(folder, "--workers", "1")
    started = time.monotonic()
    threads = [threading.Thread(target=server.predict, args=({"strData": "slow"},)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check("requests that wait do not wait for each other", time.monotonic() - started < 4, time.monotonic() - started)
    server.stop()


def drain(folder):
    server = Server(folder, "--workers", "2")
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(server.predict({"strData": "slow"})[0])) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    code, _ = server.stop()
    for thread in threads:
        thread.join()
    check("SIGTERM lets requests in hand end", statuses == [200] * 6 and code == 0, (statuses, code))


def crash(folder):
    server = Server(folder, "--workers", "2")
    victims = subprocess.run(["pgrep", "-P", str(server.process.pid)], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    check("two workers", len(victims) == 2, victims)
    vm = subprocess.run(["pgrep", "-P", victims[0]], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    os.kill(int(vm[0]), signal.SIGKILL)
    good = 0
    end = time.monotonic() + 20
    while good < 50 and time.monotonic() < end:
        try:
            good += server.predict({"strData": "x"})[0] == 200
        except OSError:
            pass
    check("a worker that dies is replaced", good == 50, good)
    server.stop()


def start_errors(folder):
    for name, text, wanted in (("syntax", "model(", "m.lua:1"), ("no model", "x = 1", "declares no model"),
                               ("unknown key", 'model "x" { predct = function() end }', "did you mean 'predict'"),
                               ("load", 'model "x" { load = function() error "no weights" end }', "no weights")):
        server = Server(folder, text=text)
        code, err = server.stop(signal.SIGCONT)
        check(f"{name} is said", code in (1, 2) and wanted in err, (code, err))
    server = Server(folder, env={
        "PREDICTIVE_UNIT_ID": "node", "PREDICTIVE_UNIT_IMAGE": "img:1", "MLHOST_MODEL_HOST": "127.0.0.1",
        "PREDICTIVE_UNIT_PARAMETERS": '[{"name":"n","value":"41","type":"INT"},{"name":"who","value":"me","type":"STRING"}]'})
    _, body, _ = server.predict({"strData": "parameters"})
    check("Seldon's environment", body["strData"] == "42me" and body["meta"]["requestPath"] == {"node": "img:1"}, body)
    server.stop()


def main():
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "mlhost.yaml"), "w", encoding="utf-8"):
            pass
        server = Server(folder, "--workers", "2", "--body-limit", "256k", "--name", "sum")
        for part in (seldon, open_inference, bad_input, metrics):
            try:
                part(server)
            except Exception as error:  # counted, the rest goes on
                check(part.__name__, False, f"{type(error).__name__}: {error}")
        server.stop()
        for part in (stuck, concurrency, drain, crash, start_errors):
            try:
                part(folder)
            except Exception as error:
                check(part.__name__, False, f"{type(error).__name__}: {error}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
