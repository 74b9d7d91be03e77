"""Move traffic from one model version to another: weights in an overlay, and whether the new version may have them."""
