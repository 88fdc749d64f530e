"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake of the user's: a bad flag, configuration, file or model directory.

    The message is one clear sentence that says what was wrong, where, and what to do. The command
    line prints it without a traceback and exits with a non-zero status.
    """
