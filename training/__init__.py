"""The offline side of Duet: the only place that imports torch."""

import os

# Threads of torch that spin while they wait stop each other where cores are shared: a step then takes up to fifteen
# times as long. Waiting passively costs nothing measurable on idle cores. Read when torch loads, so set before.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
