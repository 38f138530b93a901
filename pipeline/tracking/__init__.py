"""MLflow: an experiment per profile, a run per sweep, beneath it one for every cell and seed.

`MLFLOW_TRACKING_URI` is honoured; without it, runs go to `mlflow.db` in the repository's root.
runs/ and metrics/ are the record; the store is a view of them. A training tells MLflow of each
epoch while it goes on (`live`), an evaluation adds the scores (`scores`). If the store fails, both
warn in one line and go on, and `vmunet mlflow rebuild` gives the store what it lacks (`rebuild`).

Environment: VMUNET_SWEEP is the id of the sweep's run, which becomes the parent;
VMUNET_MLFLOW_MODEL=0 leaves models out, if 110 MB a run are too much to send to a server.
"""

from pipeline.tracking.store import client
from pipeline.tracking.sweeps import end_sweep, start_sweep

__all__ = ["client", "end_sweep", "start_sweep"]
