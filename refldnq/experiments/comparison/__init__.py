"""One network under several solvers and profiles: the runs, the figures, the page."""
