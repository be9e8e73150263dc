"""The pure core: every decision, no side effect. See supervisor/DESIGN.md."""
