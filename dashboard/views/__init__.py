"""The tabs of the dashboard: one module a tab, each with ``build(store)``."""
