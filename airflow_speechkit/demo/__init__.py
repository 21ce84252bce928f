"""The main job on a laptop: what `make demo` runs."""
