"""Programs on NVIDIA GPUs: compiling CUDA C, loading it, running and capturing programs.

Importing this package needs neither CuPy nor a GPU; what needs them says so when it is called.
"""
