"""The commands of `duet` that train or measure, but for `duet train` itself."""
