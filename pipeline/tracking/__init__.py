"""MLflow: an experiment per profile, a run per sweep, beneath it one for every cell and seed.

`MLFLOW_TRACKING_URI` is honoured; without it, runs go to `mlflow.db` in the repository's root.
Only the client is used: no global active run. Whatever is to be sent is written to a file first
(`outbox`) and sent from a thread of its own, so that a store that is slow, away, or of another
version costs a warning and never a result: runs/ and metrics/ are the record, and the store can
be rebuilt from them (`rebuild`).

Environment: VMUNET_SWEEP is the id of the sweep's run, which becomes the parent;
VMUNET_MLFLOW_MODEL=0 leaves models out, where 110 MB a run are too much to send to a server.
"""

from pipeline.tracking.store import client
from pipeline.tracking.sweeps import end_sweep, start_sweep

__all__ = ["client", "end_sweep", "start_sweep"]
