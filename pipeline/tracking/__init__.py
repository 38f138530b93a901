"""MLflow: an experiment per profile, a run per sweep, and below it a run per cell and seed.

Runs go to `MLFLOW_TRACKING_URI`, or if it is not set to `mlflow.db` in the repository's root. runs/
and metrics/ are the record, and the store shows it. A training logs each epoch while it runs
(`live`), an evaluation adds the scores (`scores`). If the store fails, both warn in one line and
continue, and `vmunet mlflow rebuild` adds the missing runs and values later (`rebuild`).

Environment: VMUNET_SWEEP is the id of the sweep's run, which becomes the parent;
VMUNET_MLFLOW_MODEL=0 logs no models, if 110 MB a run are too much to send to a server.
"""

from pipeline.tracking.store import client
from pipeline.tracking.sweeps import end_sweep, start_sweep

__all__ = ["client", "end_sweep", "start_sweep"]
