"""graphnn: eager TF2/Keras-style Python, compiled to one native program by one decorator."""

from pathlib import Path

# In a checkout the folders compiler/ and runtime/ stand beside graphnn/, not inside it.
_here = Path(__file__).resolve().parent
if not (_here / "compiler").is_dir() and (_here.parent / "compiler" / "__init__.py").is_file():
    __path__.append(str(_here.parent))
