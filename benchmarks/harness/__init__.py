"""One of everything that measuring takes: turns, spread, cold page cache, child processes, command line, record.

Work to time and a dataclass of options come in; repeats of every contender with their median and 95 % interval, and one
complete JSON record go out.
"""
