"""Where a file runs: timing on this CPU and on phones, emulated Arm, the browser."""
