"""The tone of short texts, without any framework: a package may be plain Python and a file of its own.

Texts come as BYTES, one a request or many; the answer is a score from -1 (unfriendly) to 1 (friendly) for
each.
"""

import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from mds import BadInput, Batching, LoadContext, TensorSpec, inference, load, preprocess, serving

WORD = re.compile(r"[a-z']+")
LONGEST = 10_000


@serving(
    model="tone",
    version="1",
    description="Tells how friendly a short English text is, from a list of words.",
    framework="python",
    model_file="words.json",
    inputs=[TensorSpec("text", "BYTES", [-1], description="UTF-8.")],
    outputs=[
        TensorSpec("score", "FP32", [-1], tolerance=1e-6, description="-1 (unfriendly) to 1 (friendly)."),
        TensorSpec("words", "INT32", [-1], description="Words that were counted."),
    ],
    batching=Batching(max_items=256),
)
class Tone:
    """Counts known words."""

    @load
    def read(self, context: LoadContext) -> None:
        """Reads the list of words, once per instance."""
        assert context.model_file is not None
        self.values: dict[str, float] = json.loads(context.model_file.read_text("utf-8"))

    @preprocess
    def split(self, text: npt.NDArray[Any]) -> list[list[str]]:
        """Texts become lists of words."""
        if any(len(item) > LONGEST for item in text):
            raise BadInput(f"a text may have {LONGEST} bytes")
        return [WORD.findall(item.decode("utf-8", "replace").lower()) for item in text]

    @inference
    def score(self, texts: list[list[str]]) -> dict[str, npt.NDArray[Any]]:
        """The mean value of the words that are known."""
        known = [[self.values[word] for word in words if word in self.values] for words in texts]
        scores = [sum(values) / len(values) if values else 0.0 for values in known]
        return {"score": np.array(scores, np.float32), "words": np.array([len(v) for v in known], np.int32)}
