"""DVC stage: a fingerprint of each stage's code, on which that stage depends.

    python -m stages.code

Writes .fingerprints/<stage>, a hash for each script in stages/. It always runs, in about a second;
a stage runs again only if its own hash has changed (see `pipeline.fingerprint`).
"""

from pathlib import Path

from pipeline.fingerprint import write_fingerprints

if __name__ == "__main__":
    write_fingerprints(Path())
