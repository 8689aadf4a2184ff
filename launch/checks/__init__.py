"""What can be known about manifests without a cluster: strict schemas, the official models, and the project's rules."""
