"""The machinery of Millstream, one package per concern; users import `millstream`.

docs/explanation/architecture.md draws which package may import which; import-linter checks it.
"""
