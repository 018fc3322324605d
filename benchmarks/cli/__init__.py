"""The `fourfold` command: it parses options, calls one function of the packages and prints the result.

One file per command or group of commands; app.py puts them together and turns errors into exit codes.
"""
