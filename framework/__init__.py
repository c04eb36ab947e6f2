"""The machinery of Millstream, one package a concern; users import `millstream`.

Which package may import which is drawn in docs/explanation/architecture.md, and import-linter keeps
it true.
"""
