"""The machinery of Millstream, one package a concern; users import `millstream`.

Which package may import which is drawn in docs/architecture.md and kept by import-linter.
"""
