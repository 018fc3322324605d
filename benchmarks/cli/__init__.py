"""The `fourfold` command: options come in, one function of the packages is called, its answer is printed.

One file per command or group of commands; app.py puts them together and turns errors into exit codes.
"""
