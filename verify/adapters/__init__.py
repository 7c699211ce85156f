"""Other implementations behind the contract of `refldnq.verify.kit`, and programs that answer files."""
