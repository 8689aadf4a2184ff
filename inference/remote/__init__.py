"""Models that another process or a vendor serves: how they are called, paid for and kept on record."""
