"""What a run is: strict config, identity, append-only records, manifest, console.

Nothing in this package imports another package of the project.
"""
