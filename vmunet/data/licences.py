"""The datasets' terms of use, as their publishers state them (CITATION.cff)."""

LICENCES = {
    "isic17": "ISIC 2017 (Codella et al., arXiv:1710.05006): CC-0.",
    "isic18": "ISIC 2018, task 1 (Codella et al., arXiv:1902.03368; HAM10000): CC-BY-NC 4.0, so "
    "not for commercial use.",
    "synapse": "Synapse multi-organ (BTCV, syn3193805): Synapse's own terms of use, which each "
    "user accepts; not to be passed on.",
}
PHANTOM = "Phantoms: made by this project's own code (MIT); no person's data."
OWN = "A dataset of your own: under whatever terms you hold it."


def licence_of(dataset: str, source: str) -> str:
    """A sentence on the licence of a dataset from a source (`phantom`, `http`, ..., `own`)."""
    if source == "phantom":
        return PHANTOM
    return OWN if source == "own" else LICENCES.get(dataset, OWN)
