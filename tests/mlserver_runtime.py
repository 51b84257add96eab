"""What MLServer runs: a bundle's network, with a label and all probabilities as its outputs.

Imported by MLServer's own Python, which has neither torch nor our other packages: they are borrowed, behind
its own, from the environment that runs the tests.
"""

import os
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

sys.path.append(os.environ["BORROWED_PACKAGES"])

import torch

from models.loading import load_bundle

torch.set_num_threads(1)


class Runtime(MLModel):
    async def load(self) -> bool:
        self.classifier = load_bundle(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        logits = self.classifier.logits(torch.from_numpy(images))
        found = {"label": logits.argmax(1).numpy(), "probabilities": logits.softmax(1).numpy()}
        wanted = [output.name for output in payload.outputs or ()] or list(found)
        outputs = [NumpyCodec.encode_output(name, found[name]) for name in wanted]
        return InferenceResponse(model_name=self.name, outputs=outputs)
