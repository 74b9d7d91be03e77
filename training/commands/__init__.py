"""The commands of `duet` that train or measure; each imports torch only when it runs."""
