"""One module per stage of the lineage, and the runner that both doors use."""

import os

# Threads of a parallel operation wait for each other by spinning, for milliseconds unless told otherwise. On cores that
# something else wants, too, that makes training several times slower (docs/performance.md). Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
