"""Kubernetes: render the kustomize tree, check it, submit it, and follow what runs. Imports only runs/."""
