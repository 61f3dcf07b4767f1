"""Before any test loads torch: waiting threads sleep, as under the command line (see `askwell.cli.call`)."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
