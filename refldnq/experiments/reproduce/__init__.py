"""The paper's tables and figures, run again: plans, runs, the store, and what is shown beside the paper."""
