"""The project's own rules: what an API server would refuse, and what it would admit although it cannot work."""

from launch.checks.rules import hardware, jobs, links, network, pods, syntax
from launch.checks.rules.registry import RULES, apply

__all__ = ["RULES", "apply", "hardware", "jobs", "links", "network", "pods", "syntax"]
