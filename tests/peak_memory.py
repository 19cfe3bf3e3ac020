"""Peak memory of a process, for scripts that tests run in a subprocess."""

# ru_maxrss of getrusage is of no use there: it begins with the peak of the process that started the
# script, which is pytest's.
PEAK_KIB = """
def peak_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""
