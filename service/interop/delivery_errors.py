"""Why a delivery to another system did not succeed."""


class DeliveryFailed(Exception):
    """A failed attempt; its text holds nothing that was received, and no path or query of a URL."""


class DeliveryDeclined(DeliveryFailed):
    """An attempt that was answered, but not with yes: the other side lives, and may take another message."""


class DeliveryRejected(DeliveryFailed):
    """A failed attempt that another one would not mend."""


class NotApplicable(Exception):
    """A result that a channel has nothing to do with."""
