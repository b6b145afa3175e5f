"""What is around the cases: packages, the network, the simulator, the table. Standard library only."""


class CannotStart(Exception):
    """The suite cannot begin; the text says why and what to do."""
