"""The softmax classifier of pipelines/components/training/softmax.lua in numpy, for the peers."""
import json

import numpy


class Softmax:
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            model = json.load(file)
        weights = numpy.array(model["weights"])
        self.weights = weights[:, :-1].T * model["scale"]
        self.bias = weights[:, -1]

    def __call__(self, rows):
        scores = numpy.asarray(rows, dtype=float) @ self.weights + self.bias
        e = numpy.exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
