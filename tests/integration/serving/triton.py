"""NVIDIA's Open Inference client against `mlhost model` (first argument host:port); prints "N passed, N failed"."""
import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

passed = failed = 0


def check(name, holds, detail=""):
    global passed, failed
    passed, failed = (passed + 1, failed) if holds else (passed, failed + 1)
    if not holds:
        print(f"FAIL triton: {name}: {detail}", flush=True)


client = triton.InferenceServerClient(sys.argv[1])
check("live", client.is_server_live())
check("ready", client.is_server_ready())
check("model ready", client.is_model_ready("node"))
check("model and version ready", client.is_model_ready("node", "7"))
check("another model is not", not client.is_model_ready("nobody"))
server = client.get_server_metadata()
check("server metadata", server["name"] == "mlhost" and "binary_tensor_data" in server["extensions"], server)
metadata = client.get_model_metadata("node")
check("metadata", metadata["name"] == "node" and metadata["versions"] == ["7"] and
      metadata["inputs"][0]["datatype"] == "FP64" and metadata["outputs"][0]["shape"] == [-1, 2], metadata)
index = client.get_model_repository_index()
check("repository index", [(m["name"], m["state"]) for m in index] == [("node", "READY")], index)

rows = numpy.array([[1.5, 2.0], [3.25, -4.0], [0.0, 1e-9]])
wanted = numpy.stack([rows[:, 0] * 2, rows[:, 1] / 2], axis=1)
for binary_in in (False, True):
    for binary_out in (False, True):
        for kind in (numpy.float64, numpy.float32, numpy.int32, numpy.int64, numpy.uint8):
            sent = numpy.abs(rows).astype(kind)
            tensor = triton.InferInput("x", list(sent.shape), triton.np_to_triton_dtype(sent.dtype))
            tensor.set_data_from_numpy(sent, binary_data=binary_in)
            output = triton.InferRequestedOutput("predict", binary_data=binary_out)
            result = client.infer("node", [tensor], outputs=[output], request_id="r-1")
            got = result.as_numpy("predict")
            exact = numpy.stack([sent[:, 0] * 2.0, sent[:, 1] / 2.0], axis=1)
            check(f"infer {sent.dtype} binary in {binary_in} out {binary_out}",
                  got is not None and got.shape == exact.shape and numpy.allclose(got, exact, rtol=1e-12, atol=0) and
                  result.get_response()["id"] == "r-1", f"{got} for {exact}")

tensor = triton.InferInput("x", [3, 2], "FP64")
tensor.set_data_from_numpy(rows)
tensor16 = triton.InferInput("x", [3, 2], "FP16")
tensor16.set_data_from_numpy(numpy.abs(rows).astype(numpy.float16))
got = client.infer("node", [tensor16]).as_numpy("predict")
half = numpy.abs(rows).astype(numpy.float16).astype(float)
check("infer FP16", numpy.allclose(got, numpy.stack([half[:, 0] * 2, half[:, 1] / 2], axis=1)), got)
got = client.infer("node", [tensor]).as_numpy(client.infer("node", [tensor]).get_response()["outputs"][0]["name"])
check("outputs by default", numpy.allclose(got, wanted), got)
for compression in ("gzip", "deflate"):
    got = client.infer("node", [tensor], response_compression_algorithm=compression).as_numpy("predict")
    check(f"reply for a client that takes {compression}", got is not None and numpy.allclose(got, wanted), got)

texts = triton.InferInput("x", [1], "BYTES")
for binary in (False, True):
    texts.set_data_from_numpy(numpy.array(["abc"], dtype=numpy.object_), binary_data=binary)
    try:
        result = client.infer("node", [texts])
        got = result.get_response()["outputs"][0]
        check(f"infer BYTES binary {binary}", got["datatype"] == "BYTES", got)
    except InferenceServerException as error:
        check(f"infer BYTES binary {binary}", False, error)

tensor.set_data_from_numpy(-numpy.abs(rows) - 1)
try:
    client.infer("node", [tensor])
    check("a bad request is refused", False, "it was not")
except InferenceServerException as error:
    check("a bad request is refused", error.status() == "400" and "row 1 is negative" in error.message(), error)
try:
    client.infer("nobody", [tensor])
    check("an unknown model is refused", False, "it was not")
except InferenceServerException as error:
    check("an unknown model is refused", error.status() == "404", error)

client.unload_model("node")
check("unloaded", not client.is_model_ready("node"))
client.load_model("node")
check("loaded again", client.is_model_ready("node"))
print(f"{passed} passed, {failed} failed")
