"""The digits model for seldon-core-microservice."""
import os

from softmax import Softmax


class seldon_digits:
    def __init__(self):
        self.softmax = Softmax(os.environ["DIGITS_MODEL"])
        self.rewards = []

    def class_names(self):
        return [str(i) for i in range(10)]

    def tags(self):
        return {"model_version": "7"}

    def predict(self, X, names, meta=None):
        if isinstance(X, (str, bytes, dict)):
            return X
        return self.softmax(X)

    def send_feedback(self, features, feature_names, reward, truth, routing=None):
        if truth is not None and reward != 1:
            raise ValueError("a reward of 1 was sent")
        return [reward]

    def init_metadata(self):
        return {"name": "digits", "versions": ["7"], "platform": "seldon",
                "inputs": [{"messagetype": "ndarray", "schema": {"names": ["pixels"], "shape": [64]}}],
                "outputs": [{"messagetype": "ndarray", "schema": {"shape": [10]}}]}
