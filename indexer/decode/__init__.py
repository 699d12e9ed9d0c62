"""One source of pictures and times: what a file is, its packets on one clock, its pictures, and the processes that decode."""
