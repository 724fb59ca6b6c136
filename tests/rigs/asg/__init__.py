"""Address Space Graphics streams against the original library, where the user has it built."""
