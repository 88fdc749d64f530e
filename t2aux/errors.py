"""The one exception for mistakes that a user can mend; the on-device client has the same."""

from t2aux_ondevice.errors import UserError

__all__ = ["StartAgainError", "UserError"]


class StartAgainError(UserError):
    """Nothing is wrong with the command: given again, it goes on. The exit status says so."""
