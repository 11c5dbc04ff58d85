"""The graphnn compiler: imported as graphnn.compiler, never as the bare folder."""

# Imported by its bare name the folder would become a second copy of every module.
if not __name__.startswith("graphnn."):
    raise ImportError(f"import graphnn.{__name__}, not the folder {__name__!r}")
