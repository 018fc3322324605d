"""A configuration and tables come in, a running stream of steps goes out, made ahead by threads or worker processes.

A step is a function of its position, so restarting, threads and processes change nothing in it.
"""
