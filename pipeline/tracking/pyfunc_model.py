"""The model that MLflow serves. MLflow copies this file to the weights' folder and runs it to load.

Images, a row each: column `image`, base64 of a PNG or JPEG of any size -> `mask`, base64 of a PNG
of that size (0 or 255; with several classes labels), and `<class>_fraction`, 0..1.
Volumes: column `volume`, base64 of a .nii.gz, or the path of a NIfTI file in the folder that the
server's variable VMUNET_SERVED_FOLDER names -> `labels`, base64 of a .nii.gz on the volume's own
grid, and `<organ>_ml`.
"""

import base64
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from vmunet.inference.served import Segmenter, read_input


class VMUNetModel(PythonModel):
    """Segments the rows of a table."""

    # Without this MLflow warns that `predict` has no type hints; the signature has the types.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the weights, once."""
        from pathlib import Path

        self.segmenter = Segmenter(Path(context.artifacts["weights"]))

    def predict(self, context, model_input, params=None):
        """A row of results for each row, in the columns that the signature names."""
        volumes = self.segmenter.volumes
        input_name, output_name = ("volume", "labels") if volumes else ("image", "mask")
        rows = []
        for text in model_input[input_name]:
            answer = self.segmenter(read_input(text, volumes))
            rows.append({output_name: base64.b64encode(answer.content).decode(), **answer.amounts})
        return pd.DataFrame(rows, columns=[output_name, *self.segmenter.amounts])


set_model(VMUNetModel())
