"""The serving class of the digits classifier: 8×8 grey images of handwritten digits in, the digit and scores
out.

This is all the code that a modeler writes. The model itself is an ONNX file that `train.py` exports; it is
run by the server's ONNX Runtime between the two steps below.
"""

import numpy as np
import numpy.typing as npt
from mds import BadInput, Batching, TensorSpec, postprocess, preprocess, serving

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@serving(
    model="classifier",
    description="Recognises handwritten digits in images of 8×8 pixels.",
    inputs=[TensorSpec("image", "FP32", [-1, 64], description="Pixels by row, 0 (white) to 16 (black).")],
    outputs=[
        TensorSpec("digit", "INT64", [-1], description="The most likely digit."),
        TensorSpec(
            "scores",
            "FP32",
            [-1, 10],
            tolerance=0.02,
            top_k=1,
            description="Probability of each digit.",
            labels=[str(digit) for digit in range(10)],
        ),
    ],
    batching=Batching(max_items=64),
    requirements=["numpy>=2"],
)
class Digits:
    """Checks and scales images; the answer is the digit with the best score."""

    @preprocess
    def scale(self, image: Floats) -> dict[str, Floats]:
        """Pixels of 0 to 16 become numbers of 0 to 1."""
        if image.size and not (image.min() >= 0 and image.max() <= 16):
            raise BadInput("pixels must be from 0 to 16")
        return {"pixels": image / np.float32(16)}

    @postprocess
    def decide(self, probabilities: Floats) -> dict[str, Floats | Integers]:
        """The digit with the best score, and all scores."""
        return {"digit": probabilities.argmax(axis=1), "scores": probabilities}
