"""The offline side of Duet: the only place that imports torch."""

import os

# Torch's threads spin while they wait. On shared cores they delay each other: a step then takes up to fifteen times as
# long. Passive waiting has no measurable cost on idle cores. Torch reads the variable when it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
