"""Before any test loads torch: waiting threads spin for a moment only, as under `askwell.cli.call`."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")
