"""What a command sets for its whole process before it does anything else."""

import resource

from absl import flags


def start() -> None:
    """Called where a command starts; called again it changes nothing."""
    # ImageNet is 1,024 files, which all stay open, and 1,024 is a usual limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not flags.FLAGS.is_parsed():  # Grain asks for flags of its own, which only absl's programs parse
        flags.FLAGS.mark_as_parsed()
