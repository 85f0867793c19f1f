"""The digits model for MLServer."""
import os

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from softmax import Softmax


class Digits(MLModel):
    async def load(self):
        self.softmax = Softmax(os.environ["DIGITS_MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id,
                                 outputs=[NumpyCodec.encode_output("predict", self.softmax(rows))])
