"""Before any test imports torch: the same environment as the stages have."""

import pipeline  # noqa: F401  (idle threads sleep, so that a busy machine does not crawl)
