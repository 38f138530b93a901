"""DVC's records after a kill, a full disk or a power cut: find what is damaged, and repair it.

DVC writes dvc.lock, its rwlock and its run-cache in place, so a process that is killed at this
moment leaves a part of a file, or an empty folder. Then a stage, or every command of DVC, fails
until somebody repairs it. `repair.repair` does so at the start of the commands that use DVC; after
a plain `dvc repro`, `guard` calls it. No module here imports DVC, which would take longer than the
repair.
"""
