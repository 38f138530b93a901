"""The model as MLflow serves it. MLflow copies this file beside the weights and runs it to load.

Images, a row each: column `image`, base64 of a PNG or JPEG of any size -> `mask`, base64 of a PNG
of that size (0 or 255; with several classes labels), and `<class>_fraction`, 0..1.
Volumes: column `volume`, base64 of a .nii.gz or the path of a NIfTI file that the server can read
-> `labels`, base64 of a .nii.gz on the volume's own grid, and `<organ>_ml`.
"""

import base64
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from vmunet.inference.served import Segmenter, read_input


class VMUNetModel(PythonModel):
    """Segments the rows of a table."""

    # MLflow would warn that `predict` has no type hints; the signature says what goes in and out
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the weights, once."""
        from pathlib import Path

        self.segmenter = Segmenter(Path(context.artifacts["weights"]))

    def predict(self, context, model_input, params=None):
        """A row of answers for each row, in the columns that the signature names."""
        volumes = self.segmenter.volumes
        given, gives = ("volume", "labels") if volumes else ("image", "mask")
        rows = []
        for text in model_input[given]:
            answer = self.segmenter(read_input(text, volumes))
            rows.append({gives: base64.b64encode(answer.content).decode(), **answer.amounts})
        return pd.DataFrame(rows, columns=[gives, *self.segmenter.amounts])


set_model(VMUNetModel())
